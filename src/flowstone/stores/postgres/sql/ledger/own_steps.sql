-- Steps that a run already has for some targets. Uses steps_of_target.
SELECT t.position, s.id, s.run_id, s.state, s.config_hash
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) WITH ORDINALITY AS t (asset, partition, position)
JOIN flowstone.steps AS s ON s.asset = t.asset AND s.partition = t.partition AND s.run_id = %(run_id)s;
