-- Put jobs back that this worker took but cannot use. Uses oban_jobs_pkey.
UPDATE public.oban_jobs
SET state = 'available', attempt = greatest(0, attempt - 1)
WHERE id = ANY(%(jobs)s::bigint[]) AND state = 'executing';
