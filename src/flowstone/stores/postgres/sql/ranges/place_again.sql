-- Give steps that were begun from a range a job of their own, because they go on later. Uses steps_pkey.
UPDATE flowstone.steps
SET job_id = pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
WHERE id = ANY(%(steps)s::bigint[]) AND job_id < 0
RETURNING id;
