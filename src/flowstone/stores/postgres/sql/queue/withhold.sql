-- Take jobs that a worker has just taken away from steps whose run is paused: released, woken or due after it was
-- paused. The steps wait for the run to be resumed. Uses steps_pkey.
WITH kept AS (
    UPDATE flowstone.steps AS s
    SET job_id = NULL, state = 'pending', reason = 'its run is paused'
    FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[]) AS g (job_id, step_id), flowstone.runs AS r
    WHERE s.id = g.step_id AND s.job_id = g.job_id
        AND s.state IN ('pending', 'scheduled', 'retrying', 'waiting')
        AND r.id = s.run_id AND r.paused
    RETURNING s.run_id
)
SELECT run_id, pg_catalog.count(*) AS withdrawn FROM kept GROUP BY run_id ORDER BY run_id;
