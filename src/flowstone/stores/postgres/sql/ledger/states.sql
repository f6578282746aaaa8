-- States of some steps. Uses steps_pkey.
SELECT id, state FROM flowstone.steps WHERE id = ANY(%(ids)s::bigint[]);
