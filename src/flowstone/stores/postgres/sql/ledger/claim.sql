-- Start an attempt of steps that this process drives itself. Uses steps_pkey and runs_pkey.
UPDATE flowstone.steps AS s
SET state = 'running',
    attempt = s.attempt + 1,
    token = pg_catalog.nextval('flowstone.tokens'),
    worker = %(worker)s,
    reason = NULL,
    started_at = %(now)s
FROM (
    SELECT p.id, r.kind, r.details
    FROM flowstone.steps AS p
    JOIN flowstone.runs AS r ON r.id = p.run_id
    WHERE p.id = ANY(%(ids)s::bigint[])
        AND p.state IN ('pending', 'scheduled', 'retrying')
        AND p.job_id IS NULL
        AND (p.scheduled_at IS NULL OR p.scheduled_at <= %(now)s)
    ORDER BY p.id
    FOR NO KEY UPDATE OF p
) AS c
WHERE s.id = c.id
RETURNING s.id AS step_id, s.run_id, s.asset, s.partition, s.attempt, s.max_attempts, s.token, s.started_at, s.forced,
    s.has_approvals, c.kind, c.details;
