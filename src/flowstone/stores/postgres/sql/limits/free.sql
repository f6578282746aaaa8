-- Give slots back. Uses slots_of_step.
DELETE FROM flowstone.slots WHERE step_id = ANY(%(steps)s::bigint[]) RETURNING limit_name, step_id;
