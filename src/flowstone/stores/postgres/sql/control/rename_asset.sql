-- Give an asset what is recorded under an earlier name; a partition that has a current version under the new name keeps
-- that one. Uses steps_of_target, current_outputs_pkey, check_results_of_asset, automations_pkey.
WITH steps AS (
    UPDATE flowstone.steps SET asset = %(new)s WHERE asset = %(old)s RETURNING id
), gone AS (
    DELETE FROM flowstone.current_outputs WHERE asset = %(old)s RETURNING partition, step_id, committed_at
), pointed AS (
    INSERT INTO flowstone.current_outputs (asset, partition, step_id, committed_at)
    SELECT %(new)s, g.partition, g.step_id, g.committed_at FROM gone AS g ORDER BY g.partition
    ON CONFLICT (asset, partition) DO NOTHING
), checks AS (
    UPDATE flowstone.check_results SET asset = %(new)s WHERE asset = %(old)s
), requested AS (
    UPDATE flowstone.checkpoints SET asset = %(new)s WHERE asset = %(old)s
), ranged AS (
    UPDATE flowstone.ranges SET asset = %(new)s WHERE asset = %(old)s
), conditions AS (
    UPDATE flowstone.automations AS a SET name = %(new)s
    WHERE a.kind = 'condition' AND a.name = %(old)s
        AND NOT EXISTS (SELECT FROM flowstone.automations AS n WHERE n.kind = a.kind AND n.name = %(new)s)
    RETURNING a.name
), ticked AS (
    UPDATE flowstone.ticks SET name = %(new)s
    WHERE kind = 'condition' AND name = %(old)s AND EXISTS (SELECT FROM conditions)
), logged AS (
    INSERT INTO flowstone.audit (actor, action, subject, details)
    VALUES ('flowstone', 'asset.renamed', 'asset:' || %(new)s::text,
        pg_catalog.jsonb_build_object('from', %(old)s::text))
)
SELECT pg_catalog.count(*) FROM steps;
