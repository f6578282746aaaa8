-- Delete steps with everything that is recorded of them. Uses steps_pkey, attempts_pkey, check_results_of_step,
-- lineage_pkey, tried_inputs_pkey, step_edges_pkey, step_edges_of_child, run_joins_pkey, scatter_items_pkey.
WITH checks AS (
    DELETE FROM flowstone.check_results WHERE step_id = ANY(%(steps)s::bigint[])
), attempts AS (
    DELETE FROM flowstone.attempts WHERE step_id = ANY(%(steps)s::bigint[])
), checkpoints AS (
    DELETE FROM flowstone.checkpoints WHERE step_id = ANY(%(steps)s::bigint[])
), lineage AS (
    DELETE FROM flowstone.lineage WHERE step_id = ANY(%(steps)s::bigint[])
), tried AS (
    DELETE FROM flowstone.tried_inputs WHERE step_id = ANY(%(steps)s::bigint[])
), parents AS (
    DELETE FROM flowstone.step_edges WHERE parent_id = ANY(%(steps)s::bigint[])
), children AS (
    DELETE FROM flowstone.step_edges
    WHERE child_id = ANY(%(steps)s::bigint[]) AND parent_id <> ALL(%(steps)s::bigint[])
), items AS (
    DELETE FROM flowstone.scatter_items WHERE step_id = ANY(%(steps)s::bigint[])
), joins AS (
    DELETE FROM flowstone.run_joins WHERE step_id = ANY(%(steps)s::bigint[])
)
DELETE FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);
