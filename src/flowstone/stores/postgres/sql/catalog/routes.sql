-- Decisions of steps that chose their branches. Uses steps_pkey.
SELECT s.id, s.output -> 'metadata' -> %(key)s
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND s.output -> 'metadata' ? %(key)s;
