-- Which steps read some steps. Uses lineage_readers.
SELECT upstream_step_id AS upstream, step_id AS reader
FROM flowstone.lineage
WHERE upstream_step_id = ANY(%(steps)s::bigint[])
ORDER BY upstream_step_id, step_id;
