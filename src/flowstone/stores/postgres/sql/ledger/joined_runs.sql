-- Runs that waited for these steps of other runs. Uses run_joins_pkey.
SELECT step_id, run_id FROM flowstone.run_joins WHERE step_id = ANY(%(steps)s::bigint[]);
