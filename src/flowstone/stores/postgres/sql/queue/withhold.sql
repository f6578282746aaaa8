-- Take jobs that a worker has just taken away from steps whose run is paused: released, woken or due after it was
-- paused. The steps wait for the run to be resumed. Uses oban_jobs_pkey and steps_pkey.
WITH kept AS (
    UPDATE flowstone.steps AS s
    SET job_id = NULL, state = 'pending', reason = 'its run is paused'
    FROM public.oban_jobs AS j, flowstone.runs AS r
    WHERE j.id = ANY(%(jobs)s::bigint[]) AND s.id = (j.args ->> 'step')::bigint AND s.job_id = j.id
        AND s.state IN ('pending', 'scheduled', 'retrying', 'waiting')
        AND r.id = s.run_id AND r.paused
    RETURNING s.run_id
)
SELECT run_id, pg_catalog.count(*) FROM kept GROUP BY run_id ORDER BY run_id;
