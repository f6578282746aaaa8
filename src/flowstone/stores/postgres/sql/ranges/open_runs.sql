-- Runs with partitions that nobody has begun, on one queue, the most urgent first; among equals chance decides, so
-- that backfills take turns; without what this worker has left to others. Nothing for a worker whose lease was taken
-- away. Uses ranges_open.
SELECT r.id, g.priority, r.max_concurrency IS NOT NULL AS is_limited, r.deps_timeout_seconds, r.kind, r.details,
    r.shapes, r.keys
FROM (
    SELECT run_id, pg_catalog.min(priority) AS priority
    FROM flowstone.ranges
    WHERE queue = %(queue)s AND is_open
        AND NOT (%(left)s AND (asset = ANY(%(left_assets)s::text[])
            OR run_id || ' ' || asset = ANY(%(left_runs)s::text[])))
    GROUP BY run_id
) AS g
JOIN flowstone.runs AS r ON r.id = g.run_id AND NOT r.paused
WHERE EXISTS (SELECT FROM flowstone.workers AS w WHERE w.id = %(worker_id)s AND w.lost_at IS NULL)
    AND NOT EXISTS (SELECT FROM flowstone.queues AS q WHERE q.name = %(queue)s AND q.paused)
ORDER BY g.priority, pg_catalog.random();
