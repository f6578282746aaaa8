-- Let steps that are over run once more, in place, and open their runs again for them. Runs that only waited for such a
-- step have counted it; they do not count it twice. Uses steps_pkey, runs_pkey and run_joins_pkey.
WITH revived AS (
    UPDATE flowstone.steps AS s
    SET state = 'pending',
        reason = 'its job was retried with Oban''s tools',
        max_attempts = greatest(s.max_attempts, s.attempt + 1),
        token = 0,
        placed_at = pg_catalog.clock_timestamp(),
        scheduled_at = NULL,
        finished_at = NULL
    FROM flowstone.steps AS o
    WHERE s.id = ANY(%(steps)s::bigint[]) AND o.id = s.id
    RETURNING s.id, s.run_id, s.asset, s.partition, s.job_id, o.state AS was
), counted AS (
    SELECT run_id, pg_catalog.count(*) AS steps,
        pg_catalog.count(*) FILTER (WHERE was = 'failed') AS failures,
        pg_catalog.count(*) FILTER (WHERE was = 'cancelled') AS cancellations
    FROM revived
    GROUP BY run_id
), opened AS (
    UPDATE flowstone.runs AS r
    SET open_steps = r.open_steps + c.steps,
        active_steps = r.active_steps + c.steps,
        failures = greatest(0, r.failures - c.failures),
        cancellations = greatest(0, r.cancellations - c.cancellations),
        state = 'running',
        finished_at = NULL
    FROM counted AS c
    WHERE r.id = c.run_id
), left_alone AS (
    DELETE FROM flowstone.run_joins AS j USING revived AS v WHERE j.step_id = v.id
)
INSERT INTO flowstone.audit (actor, action, subject, details)
SELECT 'oban', 'job.retried', 'step:' || v.id,
    pg_catalog.jsonb_build_object('asset', v.asset, 'partition', v.partition, 'run', v.run_id, 'job', v.job_id)
FROM revived AS v
ORDER BY v.id;
