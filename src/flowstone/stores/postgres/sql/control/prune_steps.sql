-- Delete steps with their attempts, edges and lineage. Uses steps_pkey.
DELETE FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);
