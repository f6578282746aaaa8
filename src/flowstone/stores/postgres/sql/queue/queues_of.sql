-- Queues of some jobs, to notify their workers. Uses oban_jobs_pkey.
SELECT DISTINCT queue FROM public.oban_jobs WHERE id = ANY(%(jobs)s::bigint[]) AND state = 'available';
