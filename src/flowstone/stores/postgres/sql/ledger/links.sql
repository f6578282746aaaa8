-- Who waits for these steps: children, and other runs that joined them. Uses step_edges_pkey and run_joins_pkey.
SELECT e.parent_id AS step_id, e.child_id, NULL AS run_id
FROM flowstone.step_edges AS e
WHERE e.parent_id = ANY(%(steps)s::bigint[])
UNION ALL
SELECT j.step_id, NULL, j.run_id
FROM flowstone.run_joins AS j
WHERE j.step_id = ANY(%(steps)s::bigint[]);
