-- Begin steps of a run that are ready and have no job (their job id is 0), the most urgent first: their attempts run from
-- now on. The negative job id says that there is still no row on Oban's queue; the step gets one if it has to be
-- placed again. What this worker has left to others stays. Uses steps_to_begin.
WITH chosen AS (
    SELECT o.id
    FROM flowstone.steps AS o
    WHERE o.queue = %(queue)s AND o.run_id = %(run_id)s AND o.state = 'pending' AND o.job_id = 0
        AND NOT (%(left)s AND (o.asset = ANY(%(left_assets)s::text[]) OR o.id = ANY(%(left_steps)s::bigint[])
            OR o.run_id || ' ' || o.asset = ANY(%(left_runs)s::text[])))
    ORDER BY o.priority, o.id
    LIMIT %(demand)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE flowstone.steps AS s
SET state = 'running',
    attempt = s.attempt + 1,
    token = pg_catalog.nextval('flowstone.tokens'),
    worker = %(worker_id)s,
    job_id = - s.id,
    reason = NULL,
    started_at = pg_catalog.clock_timestamp()
FROM chosen AS c
WHERE s.id = c.id
RETURNING s.id AS step_id, s.asset, s.partition AS partition_key, s.attempt, s.max_attempts, s.token, s.started_at,
    s.forced, s.priority, s.snoozes,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - s.placed_at) AS age_seconds,
    pg_catalog.date_part('epoch', s.started_at - greatest(coalesce(s.ready_at, s.placed_at), s.scheduled_at))
        AS queued_seconds;
