-- Record which steps wait for which. Uses step_edges_pkey.
INSERT INTO flowstone.step_edges (parent_id, child_id)
SELECT e.parent_id, e.child_id
FROM unnest(%(parents)s::bigint[], %(children)s::bigint[]) AS e (parent_id, child_id)
ON CONFLICT DO NOTHING;
