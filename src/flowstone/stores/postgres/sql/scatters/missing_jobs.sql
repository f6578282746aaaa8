-- Which of these jobs are not there. Uses oban_jobs_pkey.
SELECT m.job FROM unnest(%(jobs)s::bigint[]) AS m (job)
WHERE NOT EXISTS (SELECT FROM public.oban_jobs AS j WHERE j.id = m.job);
