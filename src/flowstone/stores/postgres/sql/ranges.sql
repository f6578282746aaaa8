-- Large backfills: one row for many steps, begun window by window (begin.sql).

-- name: insert
-- Record a chunk of partitions of a run. They come as lines of one text, which takes less to write than an array: an
-- encoded partition is one line.
INSERT INTO flowstone.ranges (
    run_id, asset, partitions, total, queue, priority, max_attempts, forced, code_version,
    config_hash, same_config, tags, unique_seconds
)
VALUES (
    %(run_id)s, %(asset)s, pg_catalog.string_to_array(%(partitions)s, E'\n'), %(total)s, %(queue)s, %(priority)s,
    %(max_attempts)s, %(forced)s, %(code_version)s, %(config_hash)s, %(same_config)s, %(tags)s, %(unique_seconds)s
);

-- name: queues
-- Queues on which runs have partitions that nobody has begun, or ready steps without jobs. Uses ranges_of_run and
-- steps_of_run.
SELECT DISTINCT queue FROM flowstone.ranges WHERE run_id = ANY(%(runs)s::text[]) AND is_open
UNION
SELECT DISTINCT queue FROM flowstone.steps WHERE run_id = ANY(%(runs)s::text[]) AND state = 'pending' AND job_id = 0;

-- name: find
-- Runs in which a target waits to be begun, and how many partitions are before it. Reads the open ranges.
SELECT g.run_id, r.paused, g.queue, pg_catalog.array_position(g.partitions, %(partition)s) - g.begun - 1 + (
    SELECT coalesce(pg_catalog.sum(b.total - b.begun), 0)::bigint
    FROM flowstone.ranges AS b
    WHERE b.run_id = g.run_id AND b.is_open AND b.id < g.id
) AS before
FROM flowstone.ranges AS g
JOIN flowstone.runs AS r ON r.id = g.run_id
WHERE g.is_open AND g.asset = %(asset)s AND pg_catalog.array_position(g.partitions, %(partition)s) > g.begun
ORDER BY g.id
LIMIT 1;

-- name: lock_window
-- Lock a limited run and return the room in its window. Uses runs_pkey.
SELECT greatest(0, max_concurrency - active_steps) AS room
FROM flowstone.runs
WHERE id = %(run_id)s AND NOT paused
FOR NO KEY UPDATE;

-- name: nudge
-- Which of these queues have partitions that nobody has begun, or ready steps without jobs, and whose runs are not paused.
-- Uses ranges_open and steps_to_begin.
SELECT DISTINCT g.queue
FROM flowstone.ranges AS g
JOIN flowstone.runs AS r ON r.id = g.run_id AND NOT r.paused
WHERE g.is_open AND g.queue = ANY(%(queues)s::text[])
UNION
SELECT q.name
FROM unnest(%(queues)s::text[]) AS q (name)
WHERE EXISTS (
    SELECT FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id AND NOT r.paused
    WHERE s.queue = q.name AND s.state = 'pending' AND s.job_id = 0
);

-- name: open_runs
-- Runs with partitions that nobody has begun, or with ready steps without jobs, on one queue, the most urgent first;
-- among equals chance decides, so that backfills take turns; without what this worker has left to others. Nothing for a
-- worker whose lease was taken away. The runs with steps are found from entry to entry of the index.
-- Uses ranges_open and steps_to_begin.
WITH RECURSIVE placed AS (
    (
        SELECT run_id, priority FROM flowstone.steps
        WHERE queue = %(queue)s AND state = 'pending' AND job_id = 0
        ORDER BY run_id, priority
        LIMIT 1
    )
    UNION ALL
    SELECT n.run_id, n.priority
    FROM placed AS p
    CROSS JOIN LATERAL (
        SELECT s.run_id, s.priority FROM flowstone.steps AS s
        WHERE s.queue = %(queue)s AND s.state = 'pending' AND s.job_id = 0 AND s.run_id > p.run_id
        ORDER BY s.run_id, s.priority
        LIMIT 1
    ) AS n
)
SELECT r.id, g.priority, r.max_concurrency IS NOT NULL AS is_limited, r.deps_timeout_seconds, r.kind, r.created_at, r.details,
    r.shapes, r.keys, g.is_range
FROM (
    SELECT run_id, pg_catalog.min(priority) AS priority, true AS is_range
    FROM flowstone.ranges
    WHERE queue = %(queue)s AND is_open
        AND NOT (%(left)s AND (asset = ANY(%(left_assets)s::text[])
            OR run_id || ' ' || asset = ANY(%(left_runs)s::text[])))
    GROUP BY run_id
    UNION ALL
    SELECT run_id, priority, false FROM placed
) AS g
JOIN flowstone.runs AS r ON r.id = g.run_id AND NOT r.paused
WHERE EXISTS (SELECT FROM flowstone.workers AS w WHERE w.id = %(worker_id)s AND w.lost_at IS NULL)
    AND NOT EXISTS (SELECT FROM flowstone.queues AS q WHERE q.name = %(queue)s AND q.paused)
ORDER BY g.priority, pg_catalog.random();

-- name: refuse
-- Partitions of a run that cannot begin, because they are under way elsewhere with another config: failed steps.
INSERT INTO flowstone.steps (
    id, run_id, asset, partition, state, priority, queue, max_attempts, error, error_type, config_hash, created_at,
    finished_at
)
SELECT pg_catalog.nextval('flowstone.step_ids'), %(run_id)s, %(asset)s, t.partition, 'failed', %(priority)s, %(queue)s, 1,
    t.error, %(error_type)s, %(config_hash)s, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp()
FROM unnest(%(partitions)s::text[], %(errors)s::text[]) AS t (partition, error)
RETURNING id;

-- name: place_again
-- Give steps that were begun from a range a job of their own, because they go on later. Uses steps_pkey.
UPDATE flowstone.steps
SET job_id = pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
WHERE id = ANY(%(steps)s::bigint[]) AND job_id < 0
RETURNING id;

-- name: cancel
-- End the partitions of a run that nobody has begun: they become cancelled steps. Waits for whoever is beginning some
-- of them. Uses ranges_of_run.
WITH chunk AS (
    SELECT g.* FROM flowstone.ranges AS g
    WHERE g.run_id = %(run_id)s AND g.is_open
    ORDER BY g.id
    FOR NO KEY UPDATE
), closed AS (
    UPDATE flowstone.ranges AS g SET begun = g.total, is_open = false FROM chunk AS c WHERE g.id = c.id
)
INSERT INTO flowstone.steps (
    id, run_id, asset, partition, state, reason, priority, queue, max_attempts, forced, code_version, created_at,
    tags, finished_at
)
SELECT pg_catalog.nextval('flowstone.step_ids'), c.run_id, c.asset, k.partition, 'cancelled',
    'cancelled before it started', c.priority, c.queue, c.max_attempts, c.forced, c.code_version, r.created_at,
    c.tags, pg_catalog.clock_timestamp()
FROM chunk AS c
JOIN flowstone.runs AS r ON r.id = c.run_id
CROSS JOIN LATERAL unnest(c.partitions[c.begun + 1 :]) AS k (partition);
