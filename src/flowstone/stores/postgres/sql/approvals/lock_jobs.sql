-- Lock the jobs that would end the time of these requests, before their steps, as workers do.
-- Uses checkpoints_pkey and oban_jobs_pkey.
SELECT j.id
FROM flowstone.checkpoints AS c
JOIN public.oban_jobs AS j ON j.id = c.job_id
WHERE c.id = ANY(%(ids)s::bigint[])
ORDER BY j.id
FOR UPDATE OF j;
