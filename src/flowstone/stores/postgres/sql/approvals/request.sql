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
