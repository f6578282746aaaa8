-- Take committed versions out of use. Uses current_outputs_pkey.
DELETE FROM flowstone.current_outputs AS c
USING unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
WHERE c.asset = t.asset AND c.partition = t.partition;
