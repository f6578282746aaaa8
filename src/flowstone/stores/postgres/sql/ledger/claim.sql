-- Start an attempt of steps that this process drives itself. Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = 'running',
    attempt = s.attempt + 1,
    token = pg_catalog.nextval('flowstone.tokens'),
    worker = %(worker)s,
    reason = NULL,
    started_at = %(now)s
FROM (
    SELECT id FROM flowstone.steps
    WHERE id = ANY(%(ids)s::bigint[])
        AND state IN ('pending', 'scheduled', 'retrying')
        AND job_id IS NULL
        AND (scheduled_at IS NULL OR scheduled_at <= %(now)s)
    ORDER BY id
    FOR NO KEY UPDATE
) AS c
WHERE s.id = c.id
RETURNING s.id, s.run_id, s.asset, s.partition, s.attempt, s.max_attempts, s.token, s.started_at, s.forced,
    s.asked;
