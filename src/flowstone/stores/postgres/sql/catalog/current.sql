-- Committed steps of some targets. Uses current_outputs_pkey.
SELECT t.position, c.step_id
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) WITH ORDINALITY AS t (asset, partition, position)
JOIN flowstone.current_outputs AS c ON c.asset = t.asset AND c.partition = t.partition;
