-- Let steps go on whose items are over. One that waits without a job, because there was none or it was taken away,
-- gets a new one. Uses steps_pkey and runs_pkey.
WITH chosen AS (
    SELECT s.id, r.durable
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.id = ANY(%(steps)s::bigint[]) AND s.state = 'waiting'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET state = 'pending',
    reason = NULL,
    job_id = CASE WHEN c.durable THEN coalesce(
        s.job_id, pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
    ) END
FROM chosen AS c
WHERE s.id = c.id
RETURNING s.id, s.job_id;
