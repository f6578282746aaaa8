-- Wake resting jobs; returns them with their queues. Uses oban_jobs_pkey.
UPDATE public.oban_jobs
SET state = 'available', scheduled_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
WHERE id = ANY(%(jobs)s::bigint[]) AND state = 'suspended'
RETURNING id, queue;
