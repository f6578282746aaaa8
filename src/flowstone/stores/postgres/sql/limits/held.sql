-- Limits of which these steps hold slots. Uses slots_of_step.
SELECT DISTINCT limit_name FROM flowstone.slots WHERE step_id = ANY(%(steps)s::bigint[]) ORDER BY limit_name;
