-- Finished work of the shape `dag`, as the product would have left it: runs of 2,500 days of four assets, 10,000 steps
-- each, whose ids are in the order of planning (all days of `orders`, then of `lines`, `report`, `trend`). Every tenth
-- run is of an `archive` whose partitions are computed once and stay in use. `%(name)s` are the parameters of psycopg.

-- name: runs
INSERT INTO flowstone.runs (id, kind, selection, executor, durable, state, priority, deps_timeout_seconds, assets,
    total_steps, counts, created_at, finished_at)
SELECT 'old-' || lpad(n::text, 6, '0'), 'backfill', '*', 'oban', true, 'completed', 8, 3600,
    CASE WHEN n %% 10 = 0 THEN '{archive}'::text[] ELSE '{lines,orders,report,trend}' END,
    10000, '{"completed": 10000}', t.at, t.at + interval '10 minutes'
FROM generate_series(%(first)s::integer, %(last)s) AS n
CROSS JOIN LATERAL (SELECT now() - interval '1 hour' - (%(runs)s - n) * interval '100 days' / %(runs)s AS at) AS t;

-- name: begun
-- Small rows first and `ended` after them: what an update leaves behind in the pages decides where later rows go. Rows that
-- are inserted as they are at their end leave room for one begun row in each page, which no real table has.
INSERT INTO flowstone.steps (id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token,
    job_id, worker, created_at, placed_at, started_at)
SELECT i.id, r.id, a.asset, a.partition, 'running', 8, 'backfill', 1, 3, i.id, - i.id, 'gone', r.created_at, r.created_at,
    r.finished_at
FROM generate_series(%(first)s::integer, %(last)s) AS n
JOIN flowstone.runs AS r ON r.id = 'old-' || lpad(n::text, 6, '0')
CROSS JOIN generate_series(0, 9999) AS k
CROSS JOIN LATERAL (SELECT %(base)s + n::bigint * 10000 + k AS id) AS i
CROSS JOIN LATERAL (
    SELECT CASE WHEN n %% 10 = 0 THEN 'archive' ELSE ('{orders,lines,report,trend}'::text[])[k / 2500 + 1] END AS asset,
        CASE WHEN n %% 10 = 0
            THEN 't:' || to_char(timestamp '1900-01-01' + (n * 1000 + k) * interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"')
            ELSE 'd:' || to_char(timestamp '1990-01-01' + k %% 2500 * interval '1 day', 'YYYY-MM-DD') END AS partition
) AS a;

-- name: ended
UPDATE flowstone.steps SET state = 'completed', finished_at = started_at, output_step = id,
    output = jsonb_build_object('io', 'postgres', 'location', 'inline:' || id || '-1', 'metadata', '{}'::jsonb,
        'size_bytes', 1000, 'serializer', 'json', 'value_type', 'builtins.list', 'content_hash', md5(id::text))
WHERE id BETWEEN %(from)s AND %(to)s;

-- name: attempts
INSERT INTO flowstone.attempts (step_id, attempt, token, state, worker, started_at, finished_at, queue)
SELECT id, 1, id, 'completed', 'gone', started_at, finished_at, queue
FROM flowstone.steps WHERE id BETWEEN %(from)s AND %(to)s;

-- name: values
INSERT INTO flowstone.output_payloads (version, payload)
SELECT id || '-1', convert_to(repeat('{"id": 1, "name": "customer 1", "amount": 1.25}, ', 20), 'UTF8')
FROM generate_series(%(from)s::bigint, %(to)s) AS id;

-- name: read
-- `lines` and `report` read the same day of the asset before, `trend` three days of `lines`
CREATE TEMP TABLE read ON COMMIT DROP AS
SELECT p.id, p.id - CASE WHEN p.place < 7500 THEN 2500 ELSE 5000 + back END AS upstream,
    CASE WHEN p.place < 5000 THEN 'orders' ELSE 'lines' END AS parameter
FROM (
    SELECT id, (id - %(base)s) %% 10000 AS place FROM generate_series(%(from)s::bigint, %(to)s) AS id
    WHERE (id - %(base)s) / 10000 %% 10 <> 0
) AS p
CROSS JOIN generate_series(0, 2) AS back
WHERE p.place >= 2500 AND (back = 0 OR p.place >= 7500 + back);

-- name: lineage
INSERT INTO flowstone.lineage (step_id, parameter, upstream_step_id) SELECT id, parameter, upstream FROM read;

-- name: edges
INSERT INTO flowstone.step_edges (parent_id, child_id) SELECT upstream, id FROM read;

-- name: in_use
INSERT INTO flowstone.current_outputs (asset, partition, step_id, committed_at)
SELECT asset, partition, id, finished_at FROM flowstone.steps
WHERE asset = 'archive' OR run_id = 'old-' || lpad(%(newest)s::text, 6, '0')
ON CONFLICT DO NOTHING;

-- name: jobs
INSERT INTO public.oban_jobs (state, queue, worker, completed_at)
SELECT 'completed', 'backfill', 'gone', now() FROM generate_series(1, %(jobs)s);
