-- Record which steps wait for which. Uses step_edges_pkey.
INSERT INTO flowstone.step_edges (parent_id, child_id, optional)
SELECT e.parent_id, e.child_id, %(optional)s
FROM unnest(%(parents)s::bigint[], %(children)s::bigint[]) AS e (parent_id, child_id)
ON CONFLICT DO NOTHING;
