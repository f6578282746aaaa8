-- A run and its steps: opened, placed, claimed, committed, followed, cancelled. The large statements of this life lie beside: insert_steps, finish, release.

-- name: recent
-- The newest step of some targets that was placed within some seconds, over or not: one of the ten newest, as a target has
-- one active step at a time. Uses steps_of_target.
SELECT w.position, n.id, n.run_id, n.state, n.config_hash
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) WITH ORDINALITY AS w (asset, partition, position)
CROSS JOIN LATERAL (
    SELECT s.id, s.run_id, s.state, s.config_hash
    FROM (
        SELECT o.id, o.run_id, o.state, o.config_hash, o.placed_at
        FROM flowstone.steps AS o
        WHERE o.asset = w.asset AND o.partition = w.partition AND o.run_id <> %(run_id)s
        ORDER BY o.id DESC
        LIMIT 10
    ) AS s
    WHERE s.placed_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s)
    ORDER BY s.id DESC
    LIMIT 1
) AS n;

-- name: open_run
-- Record a run; the same id again changes nothing. Uses runs_pkey.
INSERT INTO flowstone.runs (
    id, kind, selection, executor, durable, driver, priority, max_concurrency, watched, deps_timeout_seconds,
    created_at, retry_of, details, tags, assets, shapes, keys, requested_by, requested_via
)
VALUES (
    %(id)s, %(kind)s, %(selection)s, %(executor)s, %(durable)s, %(driver)s, %(priority)s, %(max_concurrency)s,
    %(watched)s, %(deps_timeout_seconds)s, %(created_at)s, %(retry_of)s,
    %(details)s, %(tags)s, %(assets)s, %(shapes)s, %(keys)s, %(requested_by)s, %(requested_via)s
)
ON CONFLICT (id) DO UPDATE SET watched = runs.watched OR excluded.watched
RETURNING durable, max_concurrency, xmax = 0 AS is_new;

-- name: join_active
-- Lock the active steps of some targets, to join them; raises their priority when the new request is more urgent.
-- Uses steps_one_active.
UPDATE flowstone.steps AS s
SET priority = least(s.priority, t.priority)
FROM (
    SELECT a.id, w.position, w.priority
    FROM unnest(%(assets)s::text[], %(partitions)s::text[], %(priorities)s::smallint[])
        WITH ORDINALITY AS w (asset, partition, priority, position)
    JOIN flowstone.steps AS a ON a.asset = w.asset AND a.partition = w.partition
        AND a.finished_at IS NULL
    ORDER BY a.id
    FOR NO KEY UPDATE OF a
) AS t
WHERE s.id = t.id
RETURNING t.position, s.id, s.run_id, s.state, s.job_id, s.priority, s.config_hash;

-- name: count_opened
-- Add new steps to the counters of their run. Uses runs_pkey.
UPDATE flowstone.runs
SET open_steps = open_steps + %(opened)s,
    total_steps = total_steps + %(total)s,
    first_partition = coalesce(first_partition, %(first_partition)s),
    last_partition = coalesce(last_partition, %(last_partition)s),
    partitions = coalesce(partitions, %(partitions)s),
    counts = NULL,
    asset_counts = NULL,
    active_steps = active_steps + %(active)s,
    failures = failures + %(failures)s,
    state = CASE WHEN open_steps + %(opened)s > 0 THEN 'running'
        WHEN failures + %(failures)s > coalesce(allowed_failures, 0) THEN 'failed'
        -- the run was there already, and was cancelled
        WHEN cancellations > 0 THEN 'cancelled'
        ELSE 'completed' END,
    finished_at = CASE WHEN open_steps + %(opened)s > 0 THEN NULL
        ELSE coalesce(finished_at, pg_catalog.clock_timestamp()) END
WHERE id = %(run_id)s
RETURNING open_steps;

-- name: insert_edges
-- Record which steps wait for which. Uses step_edges_pkey.
INSERT INTO flowstone.step_edges (parent_id, child_id, optional)
SELECT e.parent_id, e.child_id, %(optional)s
FROM unnest(%(parents)s::bigint[], %(children)s::bigint[]) AS e (parent_id, child_id)
ON CONFLICT DO NOTHING;

-- name: insert_joins
-- Record that a run waits for steps of other runs. Uses run_joins_pkey.
INSERT INTO flowstone.run_joins (step_id, run_id)
SELECT j.step_id, %(run_id)s FROM unnest(%(steps)s::bigint[]) AS j (step_id)
ON CONFLICT DO NOTHING
RETURNING step_id;

-- name: links
-- Who waits for these steps: children, and other runs that joined them. Uses step_edges_pkey and run_joins_pkey.
SELECT e.parent_id AS step_id, e.child_id, NULL AS run_id
FROM flowstone.step_edges AS e
WHERE e.parent_id = ANY(%(steps)s::bigint[])
UNION ALL
SELECT j.step_id, NULL, j.run_id
FROM flowstone.run_joins AS j
WHERE j.step_id = ANY(%(steps)s::bigint[]);

-- name: own_steps
-- Steps that a run already has for some targets. Uses steps_of_run and steps_of_target, see `catalog/resolve`.
SELECT t.position, s.id, s.run_id, s.state, s.config_hash
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) WITH ORDINALITY AS t (asset, partition, position)
JOIN flowstone.steps AS s ON s.asset = t.asset AND s.partition = t.partition AND s.run_id = %(run_id)s
    AND s.id >= (
        SELECT CASE WHEN f.run_id = %(run_id)s THEN f.id END FROM flowstone.steps AS f
        WHERE f.run_id >= %(run_id)s ORDER BY f.run_id, f.id LIMIT 1
    );

-- name: step_ids
-- Reserve ids for new steps.
SELECT pg_catalog.array_agg(pg_catalog.nextval('flowstone.step_ids'))
FROM pg_catalog.generate_series(1, %(number)s);

-- name: steps_of_run
-- Ids and jobs of the steps of a run that are not over. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = %(run_id)s
    AND state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling')
ORDER BY id;

-- name: states
-- States of some steps. Uses steps_pkey.
SELECT id, state FROM flowstone.steps WHERE id = ANY(%(ids)s::bigint[]);

-- name: leave_out
-- Skip the children that steps have not chosen; their decisions lie with their outputs. Before anything is released, so
-- that none of them ever starts. Uses steps_pkey and step_edges_pkey.
WITH locked AS (
    SELECT s.id, p.asset AS router, p.output #>> '{metadata,flowstone.route,reason}' AS reason
    FROM flowstone.steps AS p
    JOIN flowstone.step_edges AS e ON e.parent_id = p.id
    JOIN flowstone.steps AS s ON s.id = e.child_id
    WHERE p.id = ANY(%(routers)s::bigint[]) AND p.state = 'completed' AND s.state = 'waiting'
        AND p.output #> '{metadata,flowstone.route,not_chosen}' ? s.asset
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET state = 'skipped',
    reason = 'not chosen by ' || l.router || CASE WHEN l.reason <> '' THEN ': ' || l.reason ELSE '' END,
    finished_at = pg_catalog.clock_timestamp()
FROM locked AS l
WHERE s.id = l.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits;

-- name: count_placed
-- Add steps to the window of their run. Uses runs_pkey.
UPDATE flowstone.runs SET active_steps = active_steps + %(placed)s WHERE id = %(run_id)s;

-- name: job_of_step
-- The rows of oban_jobs that stand for steps now, wait with them for approval, or stand for the end of its time; locked before the step,
-- in the order in which workers lock. Uses steps_pkey, checkpoints_one_pending and oban_jobs_pkey.
SELECT j.id
FROM public.oban_jobs AS j
WHERE j.id IN (
    SELECT s.job_id FROM flowstone.steps AS s WHERE s.id = ANY(%(ids)s::bigint[])
    UNION
    SELECT c.job_id FROM flowstone.checkpoints AS c WHERE c.step_id = ANY(%(ids)s::bigint[]) AND c.state = 'pending'
    UNION
    SELECT c.step_job_id FROM flowstone.checkpoints AS c WHERE c.step_id = ANY(%(ids)s::bigint[]) AND c.state = 'pending'
)
ORDER BY j.id
FOR UPDATE OF j;

-- name: claim
-- Start an attempt of steps that this process drives itself. Uses steps_pkey and runs_pkey.
UPDATE flowstone.steps AS s
SET state = 'running',
    attempt = s.attempt + 1,
    token = pg_catalog.nextval('flowstone.tokens'),
    worker = %(worker)s,
    reason = NULL,
    started_at = %(now)s
FROM (
    SELECT p.id, r.kind, r.details
    FROM flowstone.steps AS p
    JOIN flowstone.runs AS r ON r.id = p.run_id
    WHERE p.id = ANY(%(ids)s::bigint[])
        AND p.state IN ('pending', 'scheduled', 'retrying')
        AND p.job_id IS NULL
        AND (p.scheduled_at IS NULL OR p.scheduled_at <= %(now)s)
    ORDER BY p.id
    FOR NO KEY UPDATE OF p
) AS c
WHERE s.id = c.id
RETURNING s.id AS step_id, s.asset, s.partition AS partition_key, s.attempt, s.max_attempts, s.token, s.started_at,
    s.forced, s.run_id, s.has_approvals, c.kind, c.details;

-- name: release_attempts
-- Give attempts back as if they had not started; those that were to be cancelled end, and count. Uses steps_pkey.
WITH moved AS (
    UPDATE flowstone.steps AS s
    SET state = CASE WHEN s.state = 'cancelling' THEN 'cancelled'
            WHEN %(delay_seconds)s::double precision > 0 THEN 'scheduled' ELSE 'pending' END,
        attempt = s.attempt - (s.state = 'running')::integer,
        token = 0,
        reason = CASE WHEN s.state = 'cancelling' THEN 'cancelled while it was running'
            ELSE nullif(%(reason)s, '') END,
        scheduled_at = CASE WHEN %(delay_seconds)s::double precision > 0
            THEN pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(delay_seconds)s::double precision)
            END,
        finished_at = CASE WHEN s.state = 'cancelling' THEN pg_catalog.clock_timestamp() END
    FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[]) AS g (id, token)
    WHERE s.id = g.id AND s.token = g.token AND s.state IN ('running', 'cancelling')
    RETURNING s.id, s.run_id, s.state, s.job_id, s.limits, s.attempt, g.token, s.worker,
        s.started_at, s.finished_at, CASE WHEN s.job_id IS NULL THEN '' ELSE s.queue END AS queue
), tried AS (
    INSERT INTO flowstone.attempts (step_id, attempt, token, state, worker, started_at, finished_at, queue)
    SELECT m.id, m.attempt, m.token, m.state, m.worker, m.started_at, m.finished_at, m.queue
    FROM moved AS m
    WHERE m.state = 'cancelled'
)
SELECT m.id, m.run_id, m.state, m.job_id, m.limits FROM moved AS m;

-- name: refill
-- Place the next steps of a run whose window has room. The caller holds the lock of the run's row.
-- Uses steps_to_place.
WITH chosen AS (
    SELECT s.id
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id AND NOT r.paused
    WHERE s.run_id = %(run_id)s AND s.state = 'pending' AND s.job_id IS NULL
    ORDER BY s.priority, s.id
    LIMIT %(room)s
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET reason = NULL,
    job_id = pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
FROM chosen AS c
WHERE s.id = c.id
RETURNING s.id;

-- name: count_finished
-- Take finished steps off the counters of their runs and end the runs that have none left; rows are locked in the
-- order of their ids. Uses runs_pkey.
WITH finished AS (
    SELECT r.id, f.finished, f.placed, f.failures, f.cancellations
    FROM pg_catalog.jsonb_to_recordset(%(runs)s)
        AS f (run_id text, finished bigint, placed bigint, failures bigint, cancellations bigint)
    JOIN flowstone.runs AS r ON r.id = f.run_id
    ORDER BY r.id
    FOR NO KEY UPDATE OF r
)
UPDATE flowstone.runs AS r
SET open_steps = r.open_steps - f.finished,
    active_steps = greatest(0, r.active_steps - f.placed),
    failures = r.failures + f.failures,
    cancellations = r.cancellations + f.cancellations,
    state = CASE
        WHEN r.open_steps > f.finished THEN r.state
        WHEN r.failures + f.failures > coalesce(r.allowed_failures, 0) THEN 'failed'
        WHEN r.cancellations + f.cancellations > 0 THEN 'cancelled'
        ELSE 'completed' END,
    finished_at = CASE WHEN r.open_steps <= f.finished THEN pg_catalog.clock_timestamp() END
FROM finished AS f
WHERE r.id = f.id
RETURNING r.id AS run_id, r.open_steps, r.watched, r.durable, r.max_concurrency, r.active_steps, r.releases_step, r.failures,
    r.allowed_failures;

-- name: record_counts
-- Write into runs that are over how their steps ended, own and joined: in a statement of its own, which sees what the others
-- committed for whose lock the one that ended the run has waited. Uses steps_of_run, run_joins_of_run and runs_pkey.
WITH ended AS (
    SELECT s.run_id, s.asset, s.state, pg_catalog.count(*) AS steps
    FROM flowstone.steps AS s
    WHERE s.run_id = ANY(%(runs)s::text[])
    GROUP BY s.run_id, s.asset, s.state
    UNION ALL
    SELECT j.run_id, s.asset, s.state, pg_catalog.count(*)
    FROM flowstone.run_joins AS j
    JOIN flowstone.steps AS s ON s.id = j.step_id
    WHERE j.run_id = ANY(%(runs)s::text[])
    GROUP BY j.run_id, s.asset, s.state
), by_state AS (
    SELECT t.run_id, pg_catalog.jsonb_object_agg(t.state, t.steps) AS counts, pg_catalog.sum(t.steps)::bigint AS total
    FROM (SELECT run_id, state, pg_catalog.sum(steps)::bigint AS steps FROM ended GROUP BY run_id, state) AS t
    GROUP BY t.run_id
), by_asset AS (
    SELECT a.run_id, pg_catalog.jsonb_object_agg(a.asset, a.counts) AS counts
    FROM (
        SELECT run_id, asset, pg_catalog.jsonb_object_agg(state, steps) AS counts
        FROM (
            SELECT run_id, asset, state, pg_catalog.sum(steps)::bigint AS steps FROM ended GROUP BY run_id, asset, state
        ) AS t
        GROUP BY run_id, asset
    ) AS a
    GROUP BY a.run_id
)
UPDATE flowstone.runs AS r
SET counts = coalesce(s.counts, '{}'), asset_counts = coalesce(a.counts, '{}'), total_steps = coalesce(s.total, 0)
FROM unnest(%(runs)s::text[]) AS o (id)
LEFT JOIN by_state AS s ON s.run_id = o.id
LEFT JOIN by_asset AS a ON a.run_id = o.id
WHERE r.id = o.id AND r.state <> 'running';

-- name: uncounted
-- Runs that ended before their counts were written into them. Uses runs_uncounted.
SELECT id FROM flowstone.runs
WHERE counts IS NULL AND finished_at IS NOT NULL
ORDER BY id
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED;

-- name: do_without
-- Count inputs down that were skipped and that their readers can do without; make ready whatever has none left to wait
-- for, unless all of its inputs were skipped: then it is skipped itself. Children are locked in the order of their
-- ids. Uses step_edges_pkey and steps_pkey.
WITH gone AS (
    SELECT e.child_id, pg_catalog.count(*)::integer AS inputs
    FROM flowstone.step_edges AS e
    WHERE e.parent_id = ANY(%(parents)s::bigint[]) AND e.optional
    GROUP BY e.child_id
), locked AS (
    SELECT s.id, g.inputs, r.durable, r.max_concurrency, r.paused
    FROM gone AS g
    JOIN flowstone.steps AS s ON s.id = g.child_id
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.state = 'waiting'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET waiting_on = s.waiting_on - l.inputs,
    skips_left = s.skips_left - l.inputs,
    state = CASE
        WHEN s.skips_left <= l.inputs THEN 'skipped'
        WHEN s.waiting_on > l.inputs THEN 'waiting'
        WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled'
        ELSE 'pending' END,
    reason = CASE WHEN s.skips_left <= l.inputs THEN 'all its inputs were skipped' ELSE s.reason END,
    finished_at = CASE WHEN s.skips_left <= l.inputs THEN pg_catalog.clock_timestamp() END,
    job_id = CASE WHEN s.job_id = 0 THEN 0
        WHEN s.waiting_on <= l.inputs AND coalesce(s.skips_left > l.inputs, true)
            AND l.durable AND l.max_concurrency IS NULL AND NOT l.paused
        THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) END,
    ready_at = CASE WHEN s.job_id = 0 AND s.waiting_on <= l.inputs THEN pg_catalog.clock_timestamp() END
FROM locked AS l
WHERE s.id = l.id
RETURNING s.id, s.run_id, s.state, s.job_id, l.durable, s.queue;

-- name: fail_downstream
-- End everything that waits, however indirectly, for steps that will never have a result. What was skipped ends only
-- what cannot do without it: `do_without` sees to the others.
-- Uses step_edges_pkey and steps_pkey.
WITH RECURSIVE below AS (
    SELECT e.child_id AS id, e.parent_id AS cause
    FROM flowstone.step_edges AS e
    WHERE e.parent_id = ANY(%(parents)s::bigint[]) AND NOT (e.optional AND %(state)s::text = 'skipped')
    UNION
    SELECT e.child_id, b.cause
    FROM below AS b
    JOIN flowstone.steps AS s ON s.id = b.id AND s.state = 'waiting'
    JOIN flowstone.step_edges AS e ON e.parent_id = b.id AND NOT (e.optional AND %(state)s::text = 'skipped')
), locked AS (
    SELECT s.id, first.cause
    FROM (SELECT id, pg_catalog.min(cause) AS cause FROM below GROUP BY id) AS first
    JOIN flowstone.steps AS s ON s.id = first.id
    WHERE s.state = 'waiting'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET state = %(state)s,
    reason = 'input ' || pg_catalog.rtrim(c.asset || ' ' || c.partition) || ' ended as ' || c.state,
    finished_at = pg_catalog.clock_timestamp()
FROM locked AS l
JOIN flowstone.steps AS c ON c.id = l.cause
WHERE s.id = l.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits;

-- name: notify_done
-- Notify whoever waits for steps and runs; one statement per batch, because NOTIFY takes a lock of the whole server at
-- commit.
SELECT pg_catalog.pg_notify('flowstone.done', m.payload) FROM unnest(%(payloads)s::text[]) AS m (payload);

-- name: invalidate
-- Take committed versions out of use, and note when, and who did it. Uses current_outputs_pkey and steps_pkey.
WITH gone AS (
    DELETE FROM flowstone.current_outputs AS c
    USING unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    WHERE c.asset = t.asset AND c.partition = t.partition
    RETURNING c.asset, c.partition, c.step_id, c.committed_at, pg_catalog.clock_timestamp() AS at
), noted AS (
    INSERT INTO flowstone.output_changes (asset, partition, kind, before, before_since, at, actor)
    SELECT g.asset, g.partition, 'invalidated', g.step_id, g.committed_at, g.at, %(actor)s
    FROM gone AS g
    ORDER BY g.asset, g.partition
)
UPDATE flowstone.steps AS s
SET invalidated_at = gone.at
FROM gone
WHERE s.id = gone.step_id;

-- name: cancel_steps
-- Record that steps are to be cancelled: what has not started is over, what runs is asked to stop.
-- Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = CASE WHEN s.state IN ('running', 'cancelling') THEN 'cancelling' ELSE 'cancelled' END,
    reason = CASE WHEN s.state IN ('running', 'cancelling') THEN s.reason
        WHEN s.state = 'awaiting_approval' THEN 'cancelled while it waited for approval'
        ELSE 'cancelled before it started' END,
    finished_at = CASE WHEN s.state IN ('running', 'cancelling') THEN NULL ELSE pg_catalog.clock_timestamp() END
FROM (
    SELECT id, state FROM flowstone.steps
    WHERE id = ANY(%(ids)s::bigint[])
        AND state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling')
    ORDER BY id
    FOR NO KEY UPDATE
) AS c
WHERE s.id = c.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits, c.state = 'awaiting_approval' AS had_requested,
    s.asset, s.partition AS partition_key;

-- name: mark_cancelled
-- Note that a run was cancelled as a whole, even if nothing of it was left to cancel; what is over stays what it was.
-- Uses runs_pkey.
UPDATE flowstone.runs SET cancellations = cancellations + (state = 'running')::integer WHERE id = %(run_id)s
RETURNING id;
