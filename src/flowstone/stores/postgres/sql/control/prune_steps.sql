-- Delete steps with their attempts, edges and lineage. Uses steps_pkey and step_edges_of_child.
WITH edges AS (
    DELETE FROM flowstone.step_edges WHERE child_id = ANY(%(steps)s::bigint[])
)
DELETE FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);
