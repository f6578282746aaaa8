-- Take committed versions out of use, and note when. Uses current_outputs_pkey and steps_pkey.
WITH gone AS (
    DELETE FROM flowstone.current_outputs AS c
    USING unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    WHERE c.asset = t.asset AND c.partition = t.partition
    RETURNING c.step_id
)
UPDATE flowstone.steps AS s
SET invalidated_at = pg_catalog.clock_timestamp()
FROM gone
WHERE s.id = gone.step_id;
