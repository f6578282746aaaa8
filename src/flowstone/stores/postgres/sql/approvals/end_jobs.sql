-- End the jobs that rested while their steps waited for a decision, as the steps end; those of steps that go on make room
-- for a new one. Uses checkpoints_pkey, steps_pkey and oban_jobs_pkey.
WITH decided AS (
    SELECT c.step_job_id AS job_id, CASE s.state WHEN 'failed' THEN 'discarded' WHEN 'cancelled' THEN 'cancelled'
        WHEN 'skipped' THEN 'completed' END AS state
    FROM flowstone.checkpoints AS c
    JOIN flowstone.steps AS s ON s.id = c.step_id
    WHERE c.id = ANY(%(ids)s::bigint[]) AND c.step_job_id IS NOT NULL AND c.state <> 'pending'
), ended AS (
    UPDATE public.oban_jobs AS j
    SET state = d.state::public.oban_job_state,
        completed_at = CASE WHEN d.state = 'completed' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
        discarded_at = CASE WHEN d.state = 'discarded' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
        cancelled_at = CASE WHEN d.state = 'cancelled' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END
    FROM decided AS d
    WHERE j.id = d.job_id AND d.state IS NOT NULL
)
DELETE FROM public.oban_jobs AS j USING decided AS d
WHERE j.id = d.job_id AND d.state IS NULL AND j.state NOT IN ('completed', 'discarded', 'cancelled');
