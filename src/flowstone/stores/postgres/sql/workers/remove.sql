-- A worker leaves in order. Uses workers_pkey.
DELETE FROM flowstone.workers WHERE id = %(id)s;
