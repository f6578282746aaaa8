-- Close jobs whose steps moved on without them. Uses oban_jobs_pkey.
UPDATE public.oban_jobs
SET state = 'cancelled', cancelled_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
WHERE id = ANY(%(jobs)s::bigint[]) AND state = 'executing';
