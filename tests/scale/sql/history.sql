-- The statements of `tests/scale/history.py`: what the product's own ones would have left in the tables.
-- `%(name)s` are the parameters of psycopg; a section without any is executed as it stands.

-- name: helpers
CREATE FUNCTION pg_temp.hour(n bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 't:' || to_char(timestamp '2015-01-01' + n * interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"') $$;
CREATE FUNCTION pg_temp.day(n bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'd:' || to_char(timestamp '2015-01-01' + n * interval '1 day', 'YYYY-MM-DD') $$;
CREATE FUNCTION pg_temp.lately(n bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT 'd:' || to_char(timezone('UTC', now()) - n * interval '1 day', 'YYYY-MM-DD') $$;
CREATE FUNCTION pg_temp.output(id bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('io', 'filesystem', 'location', 'scale/' || id, 'metadata', jsonb_build_object(
        'rows', 1000 + id % 977), 'serializer', 'json', 'size_bytes', 4096 + id % 8192, 'value_type', 'builtins.list',
        'content_hash', md5(id::text) || md5('x' || id)) $$;
CREATE TEMP TABLE nodes (number bigint PRIMARY KEY, name text, daily boolean, kind text, queue text, layer bigint,
    code text, limits jsonb, place bigint);
CREATE TEMP TABLE parents (child bigint, parent bigint, parameter text);
CREATE TEMP TABLE below (ancestor bigint, number bigint);
ANALYZE nodes;

-- name: below
INSERT INTO below
WITH RECURSIVE reached AS (
    SELECT parent AS ancestor, child AS number FROM parents
    UNION
    SELECT r.ancestor, p.child FROM reached AS r JOIN parents AS p ON p.parent = r.number
)
SELECT r.ancestor, r.number FROM reached AS r
JOIN nodes AS a ON a.number = r.ancestor JOIN nodes AS n ON n.number = r.number AND n.kind = a.kind;

-- name: full
-- a backfill over all partitions: one in 331 fails for good, one in 97 needs a second attempt, the sixth is cancelled
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    job_id, worker, output_step, output, code_version, error, error_type, reason, tags, created_at, placed_at,
    started_at, finished_at)
SELECT i.id, %(run)s, %(asset)s, pg_temp.hour(n), v.state, 8, 'backfill',
    CASE v.state WHEN 'cancelled' THEN 0 WHEN 'failed' THEN 3 ELSE 1 + (n %% 97 = 0)::integer END, 3,
    CASE WHEN v.state = 'cancelled' THEN 0 ELSE i.id END, CASE WHEN v.state <> 'cancelled' THEN -i.id END,
    CASE WHEN v.state <> 'cancelled' THEN 'node-' || n %% 3 END,
    CASE WHEN v.state = 'completed' THEN i.id END,
    CASE WHEN v.state = 'completed' THEN pg_temp.output(i.id) END, '7',
    CASE WHEN v.state = 'failed' THEN e'Traceback (most recent call last):\n  File "events.py", line 12, in events\n'
        '    return fetch(hour)\nConnectionError: source ' || n %% 7 || ' did not answer in 30 s' END,
    CASE WHEN v.state = 'failed' THEN 'builtins.ConnectionError' END,
    CASE WHEN v.state = 'cancelled' THEN 'cancelled before it started' END, '{large}',
    t.created, t.started, CASE WHEN v.state <> 'cancelled' THEN t.started END,
    CASE WHEN v.state = 'cancelled' THEN t.created + %(takes)s ELSE t.started + (0.05 + n * 7919 %% 400 / 1000.0)
        * interval '1 second' END
FROM generate_series(0, %(hours)s - 1) AS n
CROSS JOIN LATERAL (SELECT %(base)s + n AS id) AS i
CROSS JOIN LATERAL (SELECT CASE WHEN %(cancelled)s AND n * 10 >= %(hours)s * 6 THEN 'cancelled'
    WHEN n %% 331 = 7 THEN 'failed' ELSE 'completed' END AS state) AS v
CROSS JOIN LATERAL (SELECT %(created)s::timestamptz AS created,
    %(created)s::timestamptz + %(takes)s * (n::float8 / %(hours)s) AS started) AS t;

-- name: pruned
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    job_id, worker, output_step, output, code_version, tags, created_at, placed_at, started_at, finished_at)
SELECT %(base)s + n, %(run)s, %(asset)s, pg_temp.hour(%(first)s + n), 'completed', 8, 'backfill', 1, 3, %(base)s + n,
    -(%(base)s + n), 'node-' || n %% 3, %(base)s + n, pg_temp.output(%(base)s + n), '6', '{large}', %(created)s,
    %(created)s, %(created)s, %(created)s::timestamptz + interval '1 second'
FROM generate_series(0, %(kept)s - 1) AS n;

-- name: ranges
INSERT INTO flowstone.ranges (run_id, asset, partitions, begun, total, is_open, queue, priority, max_attempts, forced,
    code_version, tags)
SELECT %(run)s, %(asset)s, c.partitions, least(greatest(%(begun)s - c.first, 0), c.total), c.total,
    %(begun)s < c.first + c.total, 'backfill', 8, 3, true, '7', '{large}'
FROM chunks AS c ORDER BY c.first;

-- name: run
INSERT INTO flowstone.runs (id, kind, selection, executor, durable, state, priority, max_concurrency, watched,
    open_steps, active_steps, failures, cancellations, deps_timeout_seconds, assets, tags, created_at, finished_at)
VALUES (%(run)s, %(kind)s, %(selection)s, 'oban', true, %(state)s, 8, 1000, false, %(open)s, 0, %(failures)s,
    %(cancellations)s, 3600, ARRAY[%(selection)s], NULL, %(created)s,
    CASE WHEN %(state)s <> 'running' THEN %(created)s::timestamptz + %(takes)s END);

-- name: daily_of_large
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    worker, output_step, output, created_at, placed_at, started_at, finished_at)
SELECT %(base)s + n, 'rollup-' || lpad((n / 20)::text, 6, '0'), 'events_daily', pg_temp.day(n), 'completed', 4,
    'assets', 1, 3, %(base)s + n, 'node-1', %(base)s + n, pg_temp.output(%(base)s + n), t.at, t.at, t.at,
    t.at + interval '2 seconds'
FROM generate_series(0, %(days)s - 1) AS n
CROSS JOIN LATERAL (SELECT now() - interval '700 days' + n / 20 * interval '2 hours' AS at) AS t;

-- name: read_hours
INSERT INTO flowstone.lineage (step_id, parameter, upstream_step_id)
SELECT %(base)s + n, 'events', CASE WHEN n < %(pruned_days)s THEN %(pruned_base)s + n * 24 + h
    ELSE %(full_base)s + n * 24 + h + ((n * 24 + h) %% 331 = 7)::integer END
FROM generate_series(0, %(days)s - 1) AS n CROSS JOIN generate_series(0, 23) AS h
WHERE n < %(pruned_days)s OR (n * 24 + h) %% 331 <> 7;

-- name: layered
-- runs of several assets in layers; the input of a failing one is there, what lies below it fails with it
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    worker, output_step, output, code_version, error, error_type, limits, tags, created_at, placed_at, started_at,
    finished_at)
SELECT i.id, %(prefix)s || '-' || lpad(r::text, 6, '0'), a.name,
    CASE WHEN a.daily THEN pg_temp.lately(%(runs)s - r) ELSE '' END, v.state, 4, a.queue,
    CASE v.state WHEN 'upstream_failed' THEN 0 WHEN 'failed' THEN 3 ELSE 1 + (i.id %% 101 = 0)::integer END, 3,
    CASE v.state WHEN 'upstream_failed' THEN 0 ELSE i.id END,
    CASE WHEN v.state <> 'upstream_failed' THEN 'node-' || i.id %% 3 END,
    CASE WHEN v.state = 'completed' THEN i.id END, CASE WHEN v.state = 'completed' THEN pg_temp.output(i.id) END,
    a.code, CASE v.state
        WHEN 'failed' THEN e'Traceback (most recent call last):\n  File "' || a.name || e'.py", line 3, in ' || a.name
            || e'\n    raise ValueError(rows)\nValueError: ' || r || ' rows where 1,000 are usual'
        WHEN 'upstream_failed' THEN 'an input failed' END,
    CASE WHEN v.state = 'failed' THEN 'builtins.ValueError' END, a.limits, '{nightly}', t.created, t.created,
    CASE WHEN v.state <> 'upstream_failed' THEN t.started END, t.finished
FROM generate_series(1, %(runs)s) AS r
CROSS JOIN nodes AS a
CROSS JOIN LATERAL (SELECT %(base)s + (r - 1) * %(width)s + a.place AS id) AS i
CROSS JOIN LATERAL (SELECT CASE WHEN r %% %(fails_every)s = 3 THEN %(fails)s END AS failing) AS f
CROSS JOIN LATERAL (SELECT CASE WHEN a.number = f.failing THEN 'failed'
    WHEN f.failing IS NOT NULL AND EXISTS (SELECT FROM below AS b WHERE b.ancestor = f.failing AND b.number = a.number)
    THEN 'upstream_failed' ELSE 'completed' END AS state) AS v
CROSS JOIN LATERAL (SELECT now() - (%(runs)s - r) * %(apart)s::interval - %(ago)s::interval AS created) AS c
CROSS JOIN LATERAL (SELECT c.created, c.created + (1 + a.layer * 20) * interval '1 second' AS started,
    c.created + (3 + a.layer * 20 + i.id * 31 %% 15) * interval '1 second' AS finished) AS t
WHERE a.kind = 'nightly' AND a.daily = %(daily)s;

-- name: layered_runs
INSERT INTO flowstone.runs (id, kind, selection, executor, durable, state, priority, failures, deps_timeout_seconds,
    tags, assets, created_at, finished_at)
SELECT run_id, %(kind)s, %(selection)s, 'oban', true, CASE WHEN failures > 0 THEN 'failed' ELSE 'completed' END, 4,
    failures, 3600, %(tags)s, assets, created, finished
FROM (
    SELECT run_id, count(*) FILTER (WHERE state IN ('failed', 'upstream_failed')) AS failures,
        min(created_at) AS created, max(finished_at) AS finished, (array_agg(DISTINCT asset))[1:10] AS assets
    FROM flowstone.steps WHERE id >= %(base)s GROUP BY run_id
) AS s;

-- name: edges
INSERT INTO flowstone.step_edges (parent_id, child_id)
SELECT %(base)s + (r - 1) * %(width)s + p.place, %(base)s + (r - 1) * %(width)s + c.place
FROM generate_series(1, %(runs)s) AS r
CROSS JOIN parents AS e
JOIN nodes AS p ON p.number = e.parent AND p.kind = 'nightly' AND p.daily = %(daily)s
JOIN nodes AS c ON c.number = e.child AND c.kind = 'nightly';

-- name: read_parents
INSERT INTO flowstone.lineage (step_id, parameter, upstream_step_id)
SELECT e.child_id, pa.parameter, e.parent_id
FROM flowstone.step_edges AS e
JOIN flowstone.steps AS c ON c.id = e.child_id AND c.state = 'completed'
JOIN nodes AS n ON n.name = c.asset
JOIN flowstone.steps AS p ON p.id = e.parent_id
JOIN nodes AS m ON m.name = p.asset
JOIN parents AS pa ON pa.child = n.number AND pa.parent = m.number
WHERE e.child_id >= %(base)s;

-- name: single
-- runs of one step, by sensors and conditions
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    worker, output_step, output, code_version, error, error_type, limits, created_at, placed_at, started_at, finished_at)
SELECT i.id, %(kind)s || '-' || %(name)s || '-' || lpad(r::text, 6, '0'), %(asset)s, '', v.state, 4, %(queue)s,
    CASE v.state WHEN 'failed' THEN 3 ELSE 1 END, 3, i.id, 'node-' || r %% 3,
    CASE WHEN v.state = 'completed' THEN i.id END, CASE WHEN v.state = 'completed' THEN pg_temp.output(i.id) END, '1',
    CASE WHEN v.state = 'failed' THEN 'OSError: the file is empty' END,
    CASE WHEN v.state = 'failed' THEN 'builtins.OSError' END, %(limits)s, t.at, t.at, t.at,
    t.at + (1 + r %% 9) * interval '1 second'
FROM generate_series(1, %(runs)s) AS r
CROSS JOIN LATERAL (SELECT %(base)s + r - 1 AS id) AS i
CROSS JOIN LATERAL (SELECT CASE WHEN r %% 61 = 5 THEN 'failed' ELSE 'completed' END AS state) AS v
CROSS JOIN LATERAL (SELECT now() - (%(runs)s - r) * %(apart)s::interval - interval '7 minutes' AS at) AS t;

-- name: single_runs
INSERT INTO flowstone.runs (id, kind, selection, executor, durable, state, priority, failures, deps_timeout_seconds,
    assets, created_at, finished_at)
SELECT run_id, %(kind)s, asset, 'oban', true, state, 4, (state = 'failed')::integer, 3600, ARRAY[asset], created_at,
    finished_at
FROM flowstone.steps WHERE id >= %(base)s;

-- name: grid
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    worker, output_step, output, limits, created_at, placed_at, started_at, finished_at)
SELECT i.id, 'daily-' || lpad(d::text, 6, '0'), 'sales',
    '(' || pg_temp.lately(%(days)s - d) || '|s:' || (%(regions)s::text[])[g] || ')', 'completed', 4, 'assets', 1, 3,
    i.id, 'node-0', i.id, pg_temp.output(i.id), '{"warehouse": 4}', t.at, t.at, t.at, t.at + interval '3 seconds'
FROM generate_series(1, %(days)s) AS d CROSS JOIN generate_series(1, 20) AS g
CROSS JOIN LATERAL (SELECT %(base)s + (d - 1) * 20 + g - 1 AS id) AS i
CROSS JOIN LATERAL (SELECT now() - (%(days)s - d) * interval '1 day' - interval '6 hours' AS at) AS t;

-- name: keys
WITH named AS (
    INSERT INTO flowstone.partition_definitions (name, revision) VALUES ('customers', %(keys)s + 2)
), added AS (
    INSERT INTO flowstone.partition_keys (definition, key, position, revision)
    SELECT 'customers', 's:customer-' || lpad(n::text, 4, '0'), n, CASE WHEN n <= 2 THEN %(keys)s + n ELSE n END
    FROM generate_series(1, %(keys)s) AS n
)
INSERT INTO flowstone.partition_key_changes (definition, revision, key, removed, changed_at, changed_by, reason)
SELECT 'customers', n, 's:customer-' || lpad((CASE WHEN n > %(keys)s THEN n - %(keys)s ELSE n END)::text, 4, '0'),
    n > %(keys)s, now() - (500 - n) * interval '1 hour', 'ann', CASE WHEN n > %(keys)s THEN 'left us' END
FROM generate_series(1, %(keys)s + 2) AS n;

-- name: invoices
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    worker, output_step, output, created_at, placed_at, started_at, finished_at, has_approvals)
SELECT %(base)s + n, %(run)s, 'invoices', 's:customer-' || lpad(n::text, 4, '0'), 'completed', 4, 'assets', 1, 3,
    %(base)s + n, 'node-2', %(base)s + n, pg_temp.output(%(base)s + n), t.at, t.at, t.at + interval '1 hour',
    t.at + interval '2 hours', true
FROM generate_series(3, %(keys)s) AS n CROSS JOIN (SELECT now() - interval '9 days' AS at) AS t;

-- name: decided
INSERT INTO flowstone.checkpoints (step_id, run_id, asset, partition, gate, attempt, message, data, resume, state,
    on_timeout, created_at, expires_at, decided_at, decided_by, comment, announced)
SELECT s.id, s.run_id, s.asset, s.partition, 'approval', 1, 'Send the invoice?', '{"total": 1200}', 'null', 'approved',
    'reject', s.created_at, s.created_at + interval '1 day', s.created_at + interval '50 minutes', 'ann', 'checked',
    'approved'
FROM flowstone.steps AS s WHERE s.id >= %(base)s ORDER BY s.id;

-- name: pending
WITH waiting AS (
    INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
        worker, created_at, placed_at, started_at, has_approvals)
    SELECT %(base)s + n, %(run)s, 'invoices', 's:customer-' || lpad((n + 2)::text, 4, '0'), 'awaiting_approval', 4,
        'assets', 0, 3, 0, 'node-2', t.at, t.at, t.at, true
    FROM generate_series(1, %(pending)s) AS n CROSS JOIN (SELECT now() - interval '50 minutes' AS at) AS t
    RETURNING *
)
INSERT INTO flowstone.checkpoints (step_id, run_id, asset, partition, gate, attempt, message, data, resume, on_timeout,
    created_at, expires_at, announced)
SELECT w.id, w.run_id, w.asset, w.partition, 'approval', 1, 'Send the invoice?',
    json_build_object('customer', w.partition, 'total', 100 * w.id %% 7919, 'lines', json_build_array('a', 'b')), 'null',
    (ARRAY['reject', 'approve', 'skip'])[1 + w.id %% 3], w.created_at,
    now() + (w.id - %(base)s) * interval '20 minutes', 'pending'
FROM waiting AS w ORDER BY w.id;

-- name: at_work
-- a run at work: the first layer is done, the second one runs, is parked or waits in the queue, the rest waits for inputs
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, waiting_on, priority, queue, attempt, max_attempts,
    token, job_id, worker, limits, parked_for, reason, output_step, output, code_version, created_at, placed_at,
    started_at, finished_at)
SELECT i.id, %(run)s, a.name, '', v.state, CASE v.state WHEN 'waiting' THEN p.inputs ELSE 0 END, 4, a.queue,
    CASE WHEN v.state IN ('completed', 'running') THEN 1 ELSE 0 END, 3,
    CASE WHEN v.state IN ('completed', 'running') THEN i.id ELSE 0 END,
    CASE WHEN v.state IN ('running', 'pending')
        THEN nextval(pg_get_serial_sequence('public.oban_jobs', 'id')) END,
    CASE WHEN v.state IN ('completed', 'running') THEN 'node-' || i.id %% 3 END, a.limits, v.parked,
    CASE WHEN v.parked IS NOT NULL THEN 'the limit ' || v.parked || ' lets nothing more start' END,
    CASE v.state WHEN 'completed' THEN i.id END, CASE v.state WHEN 'completed' THEN pg_temp.output(i.id) END, a.code,
    t.at, t.at, CASE WHEN v.state IN ('completed', 'running') THEN t.at + a.layer * interval '25 seconds' END,
    CASE v.state WHEN 'completed' THEN t.at + interval '20 seconds' END
FROM nodes AS a
CROSS JOIN (SELECT now() - interval '3 minutes' AS at) AS t
CROSS JOIN LATERAL (SELECT %(base)s + a.place AS id) AS i
CROSS JOIN LATERAL (SELECT count(*) AS inputs FROM parents AS e JOIN nodes AS n ON n.number = e.parent
    AND n.kind = 'nightly' AND NOT n.daily WHERE e.child = a.number) AS p
CROSS JOIN LATERAL (SELECT
    CASE WHEN a.layer = 0 THEN 'completed' WHEN a.layer > 1 AND p.inputs > 0 THEN 'waiting'
        WHEN a.limits ? 'payments' OR a.queue = 'gpu' OR a.place %% 3 = 0 THEN 'pending' ELSE 'running' END AS state,
    CASE WHEN a.layer = 1 AND a.limits ? 'payments' THEN 'payments' END AS parked) AS v
WHERE a.kind = 'nightly' AND NOT a.daily;

-- name: backlog
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, max_attempts, job_id, created_at,
    placed_at)
SELECT %(base)s + n, %(run)s, 'train', 'i:' || n, 'pending', 4, 'gpu', 3,
    nextval(pg_get_serial_sequence('public.oban_jobs', 'id')), t.at, t.at
FROM generate_series(0, %(number)s - 1) AS n CROSS JOIN (SELECT now() - interval '40 minutes' AS at) AS t;

-- name: begun
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    job_id, worker, output_step, output, code_version, tags, created_at, placed_at, started_at, finished_at)
SELECT i.id, %(run)s, %(asset)s, pg_temp.hour(n), v.state, 8, 'backfill', 1, 3, i.id, -i.id, 'node-' || n %% 3,
    CASE v.state WHEN 'completed' THEN i.id END, CASE v.state WHEN 'completed' THEN pg_temp.output(i.id) END, '7',
    '{large}', %(created)s, t.at, t.at, CASE v.state WHEN 'completed' THEN t.at + interval '0.3 seconds' END
FROM generate_series(0, %(begun)s - 1) AS n
CROSS JOIN LATERAL (SELECT %(base)s + n AS id) AS i
CROSS JOIN LATERAL (SELECT CASE WHEN n >= %(begun)s - 20 THEN 'running' ELSE 'completed' END AS state) AS v
CROSS JOIN LATERAL (SELECT %(created)s::timestamptz + (now() - %(created)s::timestamptz) * (n::float8 / %(begun)s) AS at)
    AS t;

-- name: jobs
INSERT INTO public.oban_jobs (id, state, queue, worker, priority, attempt, max_attempts, args, meta, scheduled_at)
OVERRIDING SYSTEM VALUE
SELECT s.job_id, (CASE WHEN s.state = 'running' THEN 'executing' WHEN s.parked_for IS NOT NULL THEN 'suspended'
    ELSE 'available' END)::public.oban_job_state, s.queue, 'flowstone.executors.oban.job.StepWorker', s.priority,
    s.attempt, 3, jsonb_build_object('step', s.id, 'asset', s.asset, 'partition', s.partition, 'run', s.run_id),
    jsonb_build_object('asset', s.asset, 'partition', s.partition, 'run', s.run_id), timezone('UTC', s.placed_at)
FROM flowstone.steps AS s WHERE s.finished_at IS NULL AND s.job_id > 0;

-- name: attempts
INSERT INTO flowstone.attempts (step_id, attempt, token, state, worker, started_at, finished_at, error, error_type,
    retry_at, queue)
SELECT s.id, a, CASE WHEN a = s.attempt THEN s.token ELSE s.token + a * 1000000000::bigint END,
    CASE WHEN a = s.attempt THEN s.state ELSE 'failed' END, s.worker,
    s.started_at + (a - s.attempt) * interval '0.9 seconds',
    CASE WHEN a = s.attempt THEN s.finished_at ELSE s.started_at + (a - s.attempt) * interval '0.9 seconds' + interval '0.5 seconds' END,
    CASE WHEN a = s.attempt THEN s.error ELSE 'TimeoutError: no answer' END,
    CASE WHEN a = s.attempt THEN s.error_type ELSE 'builtins.TimeoutError' END,
    CASE WHEN a < s.attempt THEN s.started_at + (a + 1 - s.attempt) * interval '0.9 seconds' END, s.queue
FROM flowstone.steps AS s CROSS JOIN LATERAL generate_series(1, s.attempt) AS a
WHERE s.finished_at IS NOT NULL AND s.attempt > 0;

-- name: current
INSERT INTO flowstone.current_outputs (asset, partition, step_id, committed_at)
SELECT n.asset, n.partition, n.id, s.finished_at
FROM (SELECT asset, partition, max(id) AS id FROM flowstone.steps WHERE state = 'completed' GROUP BY 1, 2) AS n
JOIN flowstone.steps AS s ON s.id = n.id
ORDER BY 1, 2;

-- name: checks
INSERT INTO flowstone.check_results (step_id, attempt, token, asset, partition, check_name, passed, severity, blocking,
    description, error, metadata, started_at, took_seconds)
SELECT s.id, s.attempt, s.token, s.asset, s.partition, c.name, s.id %% c.fails <> 1, c.severity, false,
    'between 900 and 2,000 rows', NULL, jsonb_build_object('rows', 900 + s.id %% 1200), s.finished_at, 0.01
FROM flowstone.steps AS s
CROSS JOIN (VALUES ('positive', 'error', 997), ('usual', 'warning', 53)) AS c (name, severity, fails)
WHERE s.asset = ANY(%(assets)s) AND s.state = 'completed'
UNION ALL
SELECT s.id, s.attempt, s.token, s.asset, s.partition, 'not_empty', s.id %% 1511 <> 2, 'error', false, '', NULL, '{}',
    s.finished_at, 0.001
FROM flowstone.steps AS s
WHERE s.asset = %(large)s AND s.state = 'completed' AND s.id >= %(newest)s
ORDER BY 13;

-- name: ticks
INSERT INTO flowstone.ticks (kind, name, tick_at, state, reason, error, run_ids, evaluated_at, took_seconds, worker)
SELECT %(kind)s, %(name)s, t.at, v.state, CASE v.state WHEN 'skipped' THEN 'nothing new' END,
    CASE v.state WHEN 'failed' THEN 'TimeoutError: the evaluation took longer than 60 s' END,
    CASE v.state WHEN 'requested' THEN ARRAY[%(prefix)s || '-' || lpad(r::text, 6, '0')] ELSE '{}' END,
    t.at + interval '0.2 seconds', 0.02 + r %% 50 / 1000.0, 'node-' || r %% 3
FROM generate_series(1, %(runs)s) AS r
CROSS JOIN LATERAL (SELECT CASE WHEN r %% 211 = 9 THEN 'failed' WHEN r %% 5 = 4 THEN 'skipped' ELSE 'requested' END
    AS state) AS v
CROSS JOIN LATERAL (SELECT now() - (%(runs)s - r) * %(apart)s::interval - interval '6 minutes' AS at) AS t
ORDER BY r;

-- name: run_keys
INSERT INTO flowstone.run_keys (kind, name, run_key, run_id, used_at)
SELECT 'sensor', %(name)s, 'file-' || lpad(r::text, 6, '0'), 'sensor-' || %(name)s || '-' || lpad(r::text, 6, '0'),
    now() - (%(runs)s - r) * interval '20 minutes'
FROM generate_series(1, %(runs)s) AS r;

-- name: automation
INSERT INTO flowstone.automations (kind, name, paused, cursor, since, due_at, last_tick_at, failures)
VALUES (%(kind)s, %(name)s, %(paused)s, %(cursor)s, now() - interval '700 days', now() + interval '20 minutes',
    now() - interval '6 minutes', %(failures)s);

-- name: audit
INSERT INTO flowstone.audit (at, actor, action, subject, via, details)
SELECT now() - (20000 - n) * interval '31 minutes', (ARRAY['ann', 'bob', 'oban', 'flowstone', 'asset invoices'])[1 + n %% 5],
    (ARRAY['run.cancelled', 'run.retried', 'queue.paused', 'asset.invalidated', 'approval.requested'])[1 + n %% 5],
    (ARRAY['run:', 'run:', 'queue:', 'asset:', 'approval:'])[1 + n %% 5] || n %% 400, (ARRAY['cli', 'web'])[1 + n %% 2],
    jsonb_build_object('number', n)
FROM generate_series(1, %(lines)s) AS n;

-- name: fleet
INSERT INTO flowstone.workers (id, kind, host, pid, queues, lease_seconds, started_at, beat_at, lost_at, assets)
SELECT 'node-' || n, 'node', 'host-' || n, 4000 + n, '{"assets": 10, "backfill": 50, "sensors": 2}',
    CASE WHEN n < 3 THEN 864000 ELSE 30 END, now() - interval '2 days',
    now() - CASE WHEN n < 3 THEN interval '1 second' ELSE interval '5 hours' END,
    CASE WHEN n = 3 THEN now() - interval '5 hours' END, '{}'
FROM generate_series(0, 3) AS n;
INSERT INTO flowstone.queues (name, paused, node_limit) VALUES ('reports', true, NULL), ('backfill', false, 50);
INSERT INTO flowstone.limits (name) VALUES ('payments'), ('warehouse');
INSERT INTO flowstone.slots (limit_name, step_id)
SELECT 'warehouse', id FROM flowstone.steps WHERE finished_at IS NULL AND state = 'running' AND limits ? 'warehouse'
ORDER BY id LIMIT 4;
INSERT INTO flowstone.breakers (name, failures, opened_at, open_until)
VALUES ('payments', 6, now() - interval '2 minutes', now() + interval '10 days');

-- name: about_runs
-- Who asked, and for which partitions; what retention took away of old backfills is still in their counts.
UPDATE flowstone.runs AS r
SET requested_by = CASE r.kind WHEN 'backfill' THEN (ARRAY['ann', 'bob'])[1 + length(r.id) %% 2] ELSE r.kind END,
    requested_via = CASE r.kind WHEN 'backfill' THEN 'cli' END,
    first_partition = CASE WHEN r.selection = %(large)s THEN pg_temp.hour(0) END,
    last_partition = CASE WHEN r.selection = %(large)s THEN pg_temp.hour(%(hours)s - 1) END,
    partitions = CASE WHEN r.selection = %(large)s THEN %(hours)s END,
    counts = CASE WHEN r.id <= %(last_pruned)s AND r.selection = %(large)s
        THEN jsonb_build_object('completed', %(hours)s) ELSE r.counts END,
    asset_counts = CASE WHEN r.id <= %(last_pruned)s AND r.selection = %(large)s
        THEN jsonb_build_object(%(large)s::text, jsonb_build_object('completed', %(hours)s)) ELSE r.asset_counts END,
    total_steps = CASE WHEN r.selection = %(large)s THEN %(hours)s
        WHEN r.state = 'running' THEN r.open_steps + (SELECT count(*) FROM flowstone.steps AS s
            WHERE s.run_id = r.id AND s.finished_at IS NOT NULL)
        ELSE r.total_steps END;
