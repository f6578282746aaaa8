-- What pages ask of one run: its steps in groups, what failed, when it ran.

-- name: groups
-- The steps of a run by asset and state, own and joined; partitions that nobody has begun are pending. Reads the steps of
-- the run. Uses steps_of_run, run_joins_of_run, steps_pkey and ranges_of_run.
SELECT s.asset, s.state, pg_catalog.count(*) AS steps, pg_catalog.min(s.started_at) AS started_at,
    pg_catalog.max(s.finished_at) AS finished_at,
    coalesce(pg_catalog.sum(EXTRACT(EPOCH FROM s.finished_at - s.started_at)), 0)::double precision AS busy_seconds
FROM flowstone.steps AS s
WHERE s.run_id = %(run_id)s
GROUP BY s.asset, s.state
UNION ALL
SELECT s.asset, s.state, pg_catalog.count(*), pg_catalog.min(s.started_at), pg_catalog.max(s.finished_at),
    coalesce(pg_catalog.sum(EXTRACT(EPOCH FROM s.finished_at - s.started_at)), 0)::double precision
FROM flowstone.run_joins AS j
JOIN flowstone.steps AS s ON s.id = j.step_id
WHERE j.run_id = %(run_id)s
GROUP BY s.asset, s.state
UNION ALL
SELECT g.asset, 'pending', pg_catalog.sum(g.total - g.begun)::bigint, NULL, NULL, 0
FROM flowstone.ranges AS g
WHERE g.run_id = %(run_id)s AND g.is_open
GROUP BY g.asset;

-- name: counted
-- The same of a run that is over, as it was written into the run. Uses runs_pkey.
SELECT asset_counts FROM flowstone.runs WHERE id = %(run_id)s AND asset_counts IS NOT NULL;

-- name: failed
-- The newest steps of a run that failed. Uses steps_failed_of_run.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.error_type,
    pg_catalog.right(s.error, 4000) AS error, s.finished_at
FROM flowstone.steps AS s
WHERE s.run_id = %(run_id)s AND s.state = 'failed'
ORDER BY s.id DESC
LIMIT %(limit)s;

-- name: spans
-- When each step of a run ran, and what it waits for. Uses steps_of_run, run_joins_of_run, step_edges_of_child.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.state, s.placed_at, s.started_at, s.finished_at,
    s.attempt, (
        SELECT pg_catalog.array_agg(e.parent_id ORDER BY e.parent_id)
        FROM flowstone.step_edges AS e
        WHERE e.child_id = s.id
    ) AS waits_for
FROM (
    SELECT o.id FROM flowstone.steps AS o WHERE o.run_id = %(run_id)s
    UNION
    SELECT j.step_id FROM flowstone.run_joins AS j WHERE j.run_id = %(run_id)s
    ORDER BY id
    LIMIT %(limit)s
) AS f
JOIN flowstone.steps AS s ON s.id = f.id
ORDER BY s.id;

-- name: strip
-- The states of the own steps of a run in the order of their planning, for each asset as one text. Uses steps_of_run.
SELECT s.asset, pg_catalog.string_agg(
    CASE s.state WHEN 'completed' THEN 'c' WHEN 'reused' THEN 'r' WHEN 'failed' THEN 'f'
        WHEN 'upstream_failed' THEN 'u' WHEN 'cancelled' THEN 'x' WHEN 'skipped' THEN 's'
        WHEN 'running' THEN 'a' WHEN 'cancelling' THEN 'a' ELSE 'w' END,
    '' ORDER BY s.id
) AS codes
FROM flowstone.steps AS s
WHERE s.run_id = %(run_id)s
GROUP BY s.asset
ORDER BY pg_catalog.min(s.id)
LIMIT %(limit)s;

-- name: chunks
-- The chunks of a large backfill in their order, and how many partitions of each are steps by now. Uses ranges_of_run.
SELECT asset, total, begun FROM flowstone.ranges WHERE run_id = %(run_id)s ORDER BY id;

-- name: partitions
-- The partitions of a large backfill in their order; they never change. Uses ranges_of_run.
SELECT p.partition
FROM flowstone.ranges AS g
CROSS JOIN LATERAL unnest(g.partitions) WITH ORDINALITY AS p (partition, position)
WHERE g.run_id = %(run_id)s
ORDER BY g.id, p.position;

-- name: unusual
-- Own steps of a run that are not in the state in which most of them are. Reads the steps of the run; asked once for one
-- that is over. Uses steps_of_run.
SELECT s.partition AS partition_key, s.state FROM flowstone.steps AS s
WHERE s.run_id = %(run_id)s AND s.state <> %(usual)s;

-- name: under_way
-- Own steps of a run that failed or are at work. Uses steps_failed_of_run and steps_at_work.
SELECT s.partition AS partition_key, s.state FROM flowstone.steps AS s WHERE s.run_id = %(run_id)s AND s.state = 'failed'
UNION ALL
SELECT w.partition, w.state
FROM (
    SELECT o.run_id, o.partition, o.state FROM flowstone.steps AS o WHERE o.state IN ('running', 'cancelling') OFFSET 0
) AS w
WHERE w.run_id = %(run_id)s;

-- name: steps
-- Steps of a run in some states, of some assets, behind a step. Uses steps_of_run, steps_failed_of_run.
SELECT s.id, s.run_id, s.asset, s.partition AS partition_key, s.state, s.attempt, s.max_attempts, s.priority, s.queue,
    r.executor,
    s.created_at, s.scheduled_at, s.started_at, s.finished_at, s.worker, pg_catalog.right(s.error, 4000) AS error,
    s.error_type, s.reason, s.output_step,
    NULL::jsonb AS stored, s.code_version, s.waiting_on, s.forced, s.invalidated_at, s.error_data
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id
WHERE s.run_id = %(run_id)s AND s.id > %(after)s
    AND (%(states)s::text[] IS NULL OR s.state = ANY(%(states)s))
    AND (%(assets)s::text[] IS NULL OR s.asset = ANY(%(assets)s))
    AND (%(error_type)s::text IS NULL OR s.error_type = %(error_type)s)
ORDER BY s.id
LIMIT %(limit)s;

-- name: usual
-- How long runs like some that are not over took lately: of the same kind and selection, among the last 200 of the
-- kind. Uses runs_pkey and runs_of_kind.
SELECT r.id AS run_id, pg_catalog.percentile_cont(0.5) WITHIN GROUP (
    ORDER BY EXTRACT(EPOCH FROM l.finished_at - l.created_at)
)::double precision AS seconds
FROM flowstone.runs AS r
CROSS JOIN LATERAL (
    SELECT n.selection, n.created_at, n.finished_at, n.state, n.total_steps
    FROM flowstone.runs AS n
    WHERE n.kind = r.kind AND n.created_at < r.created_at
    ORDER BY n.created_at DESC
    LIMIT 200
) AS l
WHERE r.id = ANY(%(runs)s::text[]) AND l.selection = r.selection AND l.state = 'completed'
    AND l.total_steps BETWEEN r.total_steps / 2 AND r.total_steps * 2
GROUP BY r.id;
