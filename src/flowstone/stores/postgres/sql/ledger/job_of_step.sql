-- The rows of oban_jobs that stand for steps now, wait with them for approval, or stand for the end of its time; locked before the step,
-- in the order in which workers lock. Uses steps_pkey, checkpoints_one_pending and oban_jobs_pkey.
SELECT j.id
FROM public.oban_jobs AS j
WHERE j.id IN (
    SELECT s.job_id FROM flowstone.steps AS s WHERE s.id = ANY(%(ids)s::bigint[])
    UNION
    SELECT c.job_id FROM flowstone.checkpoints AS c WHERE c.step_id = ANY(%(ids)s::bigint[]) AND c.state = 'pending'
    UNION
    SELECT c.step_job_id FROM flowstone.checkpoints AS c WHERE c.step_id = ANY(%(ids)s::bigint[]) AND c.state = 'pending'
)
ORDER BY j.id
FOR UPDATE OF j;
