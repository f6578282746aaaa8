-- What steps read. Uses lineage_pkey and steps_pkey.
SELECT l.step_id, l.parameter, u.asset, u.partition, l.upstream_step_id AS upstream
FROM flowstone.lineage AS l
JOIN flowstone.steps AS u ON u.id = l.upstream_step_id
WHERE l.step_id = ANY(%(steps)s::bigint[])
ORDER BY l.step_id, l.parameter, l.upstream_step_id;
