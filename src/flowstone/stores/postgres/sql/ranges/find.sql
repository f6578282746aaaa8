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
