-- What steps had read, committed or not, with the hashes of the data. Uses lineage_pkey, tried_inputs_pkey, steps_pkey.
SELECT r.step_id, u.asset, u.partition, r.upstream_step_id AS upstream, u.output ->> 'content_hash' AS content_hash
FROM (
    SELECT l.step_id, l.upstream_step_id FROM flowstone.lineage AS l WHERE l.step_id = ANY(%(steps)s::bigint[])
    UNION ALL
    SELECT i.step_id, i.upstream_step_id FROM flowstone.tried_inputs AS i WHERE i.step_id = ANY(%(steps)s::bigint[])
) AS r
JOIN flowstone.steps AS u ON u.id = r.upstream_step_id;
