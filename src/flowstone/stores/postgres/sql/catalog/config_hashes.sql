-- How the runs of some steps were to compute them. Uses steps_pkey.
SELECT id, config_hash FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);
