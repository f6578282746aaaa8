-- Approvals: asked, sent to the notifiers, decided, expired.

-- name: request
-- Record the requests of steps that have just been suspended, and take their jobs from them: these rest on the queue, as
-- Oban's tools show, and start nothing. Uses steps_pkey.
WITH requested AS (
    SELECT *
    FROM pg_catalog.jsonb_to_recordset(%(requests)s) AS q (
        step_id bigint, gate text, attempt integer, message text, data text, resume text,
        timeout_seconds double precision, on_timeout text
    )
), freed AS (
    UPDATE flowstone.steps AS s
    SET job_id = NULL, scheduled_at = NULL, has_approvals = true
    FROM requested AS q
    JOIN flowstone.steps AS o ON o.id = q.step_id
    WHERE s.id = q.step_id
    RETURNING s.id, s.run_id, s.asset, s.partition, CASE WHEN o.job_id > 0 THEN o.job_id END AS step_job_id
), recorded AS (
    INSERT INTO flowstone.checkpoints (
        step_id, run_id, asset, partition, gate, attempt, message, data, resume, on_timeout, expires_at, step_job_id
    )
    SELECT f.id, f.run_id, f.asset, f.partition, q.gate, q.attempt, q.message, q.data::json, q.resume::json, q.on_timeout,
        pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => q.timeout_seconds),
        f.step_job_id
    FROM freed AS f
    JOIN requested AS q ON q.step_id = f.id
    ORDER BY f.id
    RETURNING id, asset, gate, message
), logged AS (
    INSERT INTO flowstone.audit (actor, action, subject, details)
    SELECT 'asset ' || r.asset, 'approval.requested', 'approval:' || r.id,
        pg_catalog.jsonb_build_object('gate', r.gate, 'message', r.message)
    FROM recorded AS r
)
SELECT id FROM recorded;

-- name: due
-- Requests whose time is over. Uses checkpoints_due.
SELECT id
FROM flowstone.checkpoints
WHERE state = 'pending' AND expires_at <= pg_catalog.clock_timestamp()
ORDER BY expires_at
LIMIT %(limit)s;

-- name: newest
-- The newest requests, of one state or all. Uses checkpoints_pkey.
SELECT id, step_id, run_id, asset, partition AS partition_key, gate, attempt, message, data, resume, state, on_timeout,
    created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY id DESC
LIMIT %(limit)s;

-- name: get
-- Requests for approval by their ids. Uses checkpoints_pkey.
SELECT id, step_id, run_id, asset, partition AS partition_key, gate, attempt, message, data, resume, state, on_timeout,
    created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE id = ANY(%(ids)s::bigint[])
ORDER BY id;

-- name: pending
-- Requests that nobody has decided, the most urgent first. Uses checkpoints_due.
SELECT id, step_id, run_id, asset, partition AS partition_key, gate, attempt, message, data, resume, state, on_timeout,
    created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE state = 'pending'
ORDER BY expires_at, id
LIMIT %(limit)s;

-- name: of_steps
-- The requests of some steps in the order in which they were made. Uses checkpoints_of_step.
SELECT id, step_id, run_id, asset, partition AS partition_key, gate, attempt, message, data, resume, state, on_timeout,
    created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE step_id = ANY(%(steps)s::bigint[])
ORDER BY step_id, id;

-- name: of_jobs
-- The requests whose time these jobs end. The jobs name them. Uses oban_jobs_pkey and checkpoints_pkey.
SELECT c.id
FROM public.oban_jobs AS j
JOIN flowstone.checkpoints AS c ON c.job_id = j.id AND c.id::text = j.args ->> 'approval'
WHERE j.id = ANY(%(jobs)s::bigint[]);

-- name: claim_notifications
-- Claim requests whose present state was not announced yet, for as long as a lease. Uses checkpoints_unannounced.
UPDATE flowstone.checkpoints AS c
SET announce_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(lease_seconds)s)
FROM (
    SELECT id
    FROM flowstone.checkpoints
    WHERE announced IS DISTINCT FROM state AND announce_after <= pg_catalog.clock_timestamp()
        AND (state = 'pending' OR decided_at > pg_catalog.clock_timestamp() - interval '1 day')
    ORDER BY announce_after
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AS t
WHERE c.id = t.id
RETURNING c.id, c.step_id, c.run_id, c.asset, c.partition AS partition_key, c.gate, c.attempt, c.message, c.data,
    c.resume,
    c.state, c.on_timeout, c.created_at, c.expires_at, c.decided_at, c.decided_by, c.comment;

-- name: release_notification
-- Note when to try again to announce a state of a request. Uses checkpoints_pkey.
UPDATE flowstone.checkpoints
SET announce_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(retry_in_seconds)s)
WHERE id = %(id)s AND state = %(state)s;

-- name: acknowledge_notification
-- Note that a state of a request was announced; a newer one is still to be announced. Uses checkpoints_pkey.
UPDATE flowstone.checkpoints SET announced = %(state)s WHERE id = %(id)s;

-- name: decide
-- Decide requests that are still open: by a person before their time is over, by the time itself after it. The steps
-- are locked first, as everybody does who moves them; of two at once the second one finds nothing to decide.
-- Uses checkpoints_pkey and steps_pkey.
WITH locked AS (
    SELECT c.id
    FROM flowstone.checkpoints AS c
    JOIN flowstone.steps AS s ON s.id = c.step_id
    WHERE c.id = ANY(%(ids)s::bigint[]) AND c.state = 'pending'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
), decided AS (
    UPDATE flowstone.checkpoints AS c
    SET state = %(state)s,
        decided_at = pg_catalog.clock_timestamp(),
        decided_by = %(by)s,
        comment = %(comment)s,
        announce_after = pg_catalog.clock_timestamp()
    FROM locked AS l
    WHERE c.id = l.id AND c.state = 'pending'
        AND (c.expires_at <= pg_catalog.clock_timestamp()) = (%(state)s = 'expired')
    RETURNING c.*
), logged AS (
    INSERT INTO flowstone.audit (actor, via, action, subject, details)
    SELECT coalesce(d.decided_by, 'flowstone'), %(via)s::text, 'approval.' || d.state, 'approval:' || d.id,
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('comment', d.comment))
    FROM decided AS d
    ORDER BY d.id
)
SELECT id, step_id, run_id, asset, partition AS partition_key, gate, attempt, message, data, resume, state, on_timeout,
    created_at,
    expires_at, decided_at, decided_by, comment
FROM decided
ORDER BY id;

-- name: settle_jobs
-- Put jobs back that came too early for their request; others of these have nothing to do any more.
-- Uses oban_jobs_pkey and checkpoints_pkey.
WITH early AS (
    UPDATE public.oban_jobs AS j
    SET state = 'scheduled', attempt = 0, scheduled_at = pg_catalog.timezone('UTC', c.expires_at)
    FROM flowstone.checkpoints AS c
    WHERE j.id = ANY(%(jobs)s::bigint[]) AND c.job_id = j.id AND c.id::text = j.args ->> 'approval'
        AND c.state = 'pending'
    RETURNING j.id
)
DELETE FROM public.oban_jobs AS j
WHERE j.id = ANY(%(jobs)s::bigint[])
    AND NOT EXISTS (
        SELECT FROM flowstone.checkpoints AS c
        WHERE c.job_id = j.id AND c.id::text = j.args ->> 'approval' AND c.state = 'pending'
    );

-- name: move_steps
-- Move steps as was decided: on, or to their end. Steps that go on are ready at once; time that a person took does not
-- count as waiting for inputs. Uses steps_pkey and runs_pkey.
UPDATE flowstone.steps AS s
SET state = v.state,
    reason = v.reason,
    error = coalesce(v.error, s.error),
    error_type = coalesce(v.error_type, s.error_type),
    placed_at = CASE WHEN v.state = 'pending' THEN pg_catalog.clock_timestamp() ELSE s.placed_at END,
    finished_at = CASE WHEN v.state <> 'pending' THEN pg_catalog.clock_timestamp() END,
    job_id = CASE WHEN v.state = 'pending' AND r.durable AND r.max_concurrency IS NULL AND NOT r.paused
        THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) END
FROM pg_catalog.jsonb_to_recordset(%(verdicts)s)
    AS v (step_id bigint, state text, reason text, error text, error_type text),
    flowstone.runs AS r
WHERE s.id = v.step_id AND s.state = 'awaiting_approval' AND r.id = s.run_id
RETURNING s.id, s.run_id, s.state, s.job_id, r.durable, s.queue;

-- name: place_expiry
-- Put a job on Oban's queue for the end of the time of each of these requests. Steps that a process drives itself need
-- none: it watches the time. Uses checkpoints_pkey.
WITH chosen AS (
    SELECT c.id, c.expires_at, pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) AS job_id
    FROM flowstone.checkpoints AS c
    JOIN flowstone.runs AS r ON r.id = c.run_id AND r.durable
    WHERE c.id = ANY(%(ids)s::bigint[])
), placed AS (
    INSERT INTO public.oban_jobs (id, state, queue, worker, priority, max_attempts, args, scheduled_at)
    OVERRIDING SYSTEM VALUE
    SELECT c.job_id, 'scheduled', %(queue)s, %(worker)s, 0, 32767, pg_catalog.jsonb_build_object('approval', c.id),
        pg_catalog.timezone('UTC', c.expires_at)
    FROM chosen AS c
)
UPDATE flowstone.checkpoints AS c SET job_id = o.job_id FROM chosen AS o WHERE c.id = o.id;

-- name: lock_jobs
-- Lock the jobs of the steps that wait for these requests, and those that would end their time, before the steps, as
-- workers do.
-- Uses checkpoints_pkey and oban_jobs_pkey.
SELECT j.id
FROM flowstone.checkpoints AS c
JOIN public.oban_jobs AS j ON j.id IN (c.job_id, c.step_job_id)
WHERE c.id = ANY(%(ids)s::bigint[])
ORDER BY j.id
FOR UPDATE OF j;

-- name: end_jobs
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

-- name: drop_expiries
-- Remove the jobs that would have ended the time of requests that are over. Uses checkpoints_pkey and oban_jobs_pkey.
DELETE FROM public.oban_jobs AS j
USING flowstone.checkpoints AS c
WHERE c.id = ANY(%(ids)s::bigint[]) AND c.state <> 'pending' AND j.id = c.job_id;

-- name: cancel
-- Cancel the open requests of steps that were cancelled, whose rows are locked. Uses checkpoints_one_pending.
WITH cancelled AS (
    UPDATE flowstone.checkpoints AS c
    SET state = 'cancelled', decided_at = pg_catalog.clock_timestamp(), announce_after = pg_catalog.clock_timestamp()
    WHERE c.step_id = ANY(%(steps)s::bigint[]) AND c.state = 'pending'
    RETURNING c.id
), logged AS (
    INSERT INTO flowstone.audit (actor, action, subject)
    SELECT 'flowstone', 'approval.cancelled', 'approval:' || c.id FROM cancelled AS c ORDER BY c.id
)
SELECT id FROM cancelled;
