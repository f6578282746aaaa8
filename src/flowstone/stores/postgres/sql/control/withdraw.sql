-- Take the jobs of steps that could start now away from them; they wait for the run to be resumed. The jobs are locked
-- first, as workers do; one that a worker is just taking is not waited for, and what is due later stays where it is:
-- `queue/withhold` sees both. Uses steps_of_run and oban_jobs_pkey.
WITH jobs AS (
    SELECT j.id
    FROM flowstone.steps AS s
    JOIN public.oban_jobs AS j ON j.id = s.job_id
    WHERE s.run_id = %(run_id)s AND s.state IN ('pending', 'retrying') AND s.parked_for IS NULL
        AND j.state = 'available'
    ORDER BY j.id
    FOR UPDATE OF j SKIP LOCKED
), closed AS (
    UPDATE public.oban_jobs AS j
    SET state = 'cancelled', cancelled_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
    FROM jobs
    WHERE j.id = jobs.id
)
UPDATE flowstone.steps AS s
SET job_id = NULL, state = 'pending', reason = 'its run is paused'
FROM jobs
WHERE s.job_id = jobs.id AND s.run_id = %(run_id)s
RETURNING s.id;
