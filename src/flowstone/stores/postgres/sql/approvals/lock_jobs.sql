-- Lock the jobs of the steps that wait for these requests, and those that would end their time, before the steps, as
-- workers do.
-- Uses checkpoints_pkey and oban_jobs_pkey.
SELECT j.id
FROM flowstone.checkpoints AS c
JOIN public.oban_jobs AS j ON j.id IN (c.job_id, c.step_job_id)
WHERE c.id = ANY(%(ids)s::bigint[])
ORDER BY j.id
FOR UPDATE OF j;
