-- Note that a later attempt found items again, and where. Uses scatter_items_pkey.
UPDATE flowstone.scatter_items AS i
SET position = g.position, token = %(token)s
FROM unnest(%(steps)s::bigint[], %(positions)s::bigint[]) AS g (step_id, position)
WHERE i.step_id = g.step_id;
