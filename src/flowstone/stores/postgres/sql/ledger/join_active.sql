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
