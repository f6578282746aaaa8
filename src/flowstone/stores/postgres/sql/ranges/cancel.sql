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
