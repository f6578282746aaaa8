-- Take jobs of one queue, the most urgent first, and start the attempts of their steps, in one transaction: there is
-- no moment at which a job is taken and its step does not know. A job whose step moved on, or whose run
-- is paused, comes back without a step.
-- What this worker has left to others, because it cannot run it as it was placed, is not read either.
-- A worker whose lease was taken away, and who does not know yet, gets nothing. Only rows of our workers are read:
-- those of other applications in a queue of the same name are not counted, not locked, and what they hold is not read.
-- The names are written out because only then does the planner take flowstone_available.
-- Uses flowstone_available (else oban_jobs_state_queue_priority_scheduled_at_id_index), steps_pkey and steps_to_begin.
WITH chosen AS (
    SELECT id
    FROM public.oban_jobs AS p
    WHERE state = 'available' AND queue = %(queue)s AND priority < %(below)s
        AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
        AND EXISTS (SELECT FROM flowstone.workers AS w WHERE w.id = %(worker_id)s AND w.lost_at IS NULL)
        AND NOT EXISTS (SELECT FROM flowstone.queues AS q WHERE q.name = %(queue)s AND q.paused)
        AND NOT (%(left)s AND EXISTS (
            SELECT FROM flowstone.steps AS o
            WHERE o.id = CASE WHEN p.args ->> 'step' ~ '^[0-9]{1,18}$' THEN (p.args ->> 'step')::bigint END
                AND (o.asset = ANY(%(left_assets)s::text[]) OR o.id = ANY(%(left_steps)s::bigint[])
                    OR o.run_id || ' ' || o.asset = ANY(%(left_runs)s::text[]))
        ))
    ORDER BY priority, scheduled_at, id
    LIMIT %(demand)s
    FOR UPDATE SKIP LOCKED
), fetched AS (
    UPDATE public.oban_jobs AS j
    SET state = 'executing',
        attempt = least(j.attempt + 1, j.max_attempts),
        attempted_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()),
        attempted_by = %(attempted_by)s::text[]
    FROM chosen AS c
    WHERE j.id = c.id
    RETURNING j.id, j.worker, j.priority, j.scheduled_at,
        CASE WHEN j.args ->> 'step' ~ '^[0-9]{1,18}$' THEN (j.args ->> 'step')::bigint END AS step_id
), started AS (
    UPDATE flowstone.steps AS s
    SET state = 'running',
        attempt = s.attempt + 1,
        token = pg_catalog.nextval('flowstone.tokens'),
        worker = %(worker_id)s,
        reason = NULL,
        parked_for = NULL,
        started_at = pg_catalog.clock_timestamp()
    FROM fetched AS f
    WHERE s.id = f.step_id AND s.job_id = f.id AND f.worker = %(worker)s
        AND s.state IN ('pending', 'scheduled', 'retrying', 'waiting')
        -- whoever made a resting job available, its items are not over
        AND (s.state <> 'waiting' OR NOT EXISTS (
            SELECT FROM flowstone.scatters AS c JOIN flowstone.runs AS i ON i.id = c.run_id
            WHERE c.step_id = s.id AND (c.is_open OR i.state = 'running')
        ))
        AND NOT EXISTS (SELECT FROM flowstone.runs AS p WHERE p.id = s.run_id AND p.paused)
    RETURNING s.id, s.run_id, s.asset, s.partition, s.attempt, s.max_attempts, s.token, s.started_at, s.forced,
        s.job_id, s.snoozes, s.placed_at, s.limits, s.has_approvals
)
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.attempt, s.max_attempts, s.token, s.started_at, s.forced,
    s.id IS NOT NULL AS is_started, s.run_id, s.snoozes,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - s.placed_at) AS age_seconds, s.limits, s.has_approvals,
    r.deps_timeout_seconds, r.kind, r.details, r.shapes ->> s.asset AS shape, r.keys ->> s.asset AS keys,
    pg_catalog.date_part('epoch', s.started_at - pg_catalog.timezone('UTC', f.scheduled_at)) AS queued_seconds,
    f.id AS job_id, f.worker, f.step_id AS named_step,
    (
        SELECT EXISTS (SELECT FROM flowstone.ranges AS g WHERE g.queue = %(queue)s AND g.is_open)
            OR EXISTS (SELECT FROM flowstone.steps AS o WHERE o.queue = %(queue)s AND o.state = 'pending' AND o.job_id = 0)
    ) AS has_ranges
FROM fetched AS f
LEFT JOIN started AS s ON s.job_id = f.id
LEFT JOIN flowstone.runs AS r ON r.id = s.run_id
ORDER BY f.priority, f.scheduled_at, f.id;
