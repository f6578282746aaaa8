-- The row of oban_jobs that stands for steps now; locked before the step, in the order in which workers lock.
-- Uses steps_pkey.
SELECT j.id
FROM flowstone.steps AS s
JOIN public.oban_jobs AS j ON j.id = s.job_id
WHERE s.id = ANY(%(ids)s::bigint[])
ORDER BY j.id
FOR UPDATE OF j;
