-- End attempts that are still the newest of their steps (the fencing token decides) and publish what succeeded:
-- state, attempt row, pointer, lineage, small values, which travel in binary. One statement; uses steps_pkey.
WITH ended AS (
    SELECT *
    FROM pg_catalog.jsonb_to_recordset(%(rows)s) AS e (
        id bigint, token bigint, state text, output jsonb, error text, error_type text, reason text,
        delay_seconds double precision, releases boolean, inputs jsonb, finished_at timestamptz, error_data jsonb,
        ran boolean, code_version text
    )
    -- a limit, and states, that the planner does not know: while it has not counted what runs, it would read that of the
    -- whole fleet for each commit
    LIMIT (SELECT pg_catalog.jsonb_array_length(%(rows)s))
), moved AS (
    UPDATE flowstone.steps AS s
    SET state = CASE
            WHEN s.state = 'cancelling' AND e.state IN ('retrying', 'scheduled', 'waiting', 'failed', 'pending', 'awaiting_approval')
            THEN 'cancelled' ELSE e.state END,
        attempt = s.attempt - (e.releases AND s.state = 'running')::integer,
        snoozes = s.snoozes + e.releases::integer,
        token = CASE WHEN e.releases THEN 0 ELSE s.token END,
        output = coalesce(e.output, s.output),
        output_step = CASE WHEN e.state = 'completed' THEN s.id ELSE s.output_step END,
        error = CASE WHEN e.state = 'completed' THEN NULL ELSE coalesce(e.error, s.error) END,
        error_type = CASE WHEN e.state = 'completed' THEN NULL ELSE coalesce(e.error_type, s.error_type) END,
        error_data = CASE WHEN e.state = 'completed' THEN NULL WHEN e.error IS NULL THEN s.error_data ELSE e.error_data END,
        reason = e.reason,
        code_version = CASE WHEN e.ran THEN e.code_version ELSE s.code_version END,
        scheduled_at = CASE WHEN e.delay_seconds IS NULL THEN s.scheduled_at
            ELSE e.finished_at + pg_catalog.make_interval(secs => e.delay_seconds) END,
        finished_at = CASE
            WHEN s.state = 'cancelling' OR e.state IN ('completed', 'failed', 'skipped', 'cancelled')
            THEN e.finished_at END
    FROM ended AS e
    WHERE s.id = e.id AND s.token = e.token AND s.state = ANY((SELECT ARRAY['running', 'cancelling'])::text[])
    RETURNING s.id, s.run_id, s.asset, s.partition, s.state, s.attempt, s.max_attempts, e.token, s.worker, s.job_id,
        s.started_at, s.scheduled_at, s.error, s.error_type, e.inputs, e.finished_at, s.limits, s.is_item,
        e.releases AND s.state <> 'cancelled' AS releases, CASE WHEN s.job_id IS NULL THEN '' ELSE s.queue END AS queue
), tried AS (
    INSERT INTO flowstone.attempts (
        step_id, attempt, token, state, worker, started_at, finished_at, error, error_type, retry_at,
        queue, read
    )
    SELECT m.id, m.attempt, m.token, CASE WHEN m.state = 'retrying' THEN 'failed' ELSE m.state END, m.worker,
        m.started_at, m.finished_at,
        CASE WHEN m.state <> 'completed' THEN m.error END,
        CASE WHEN m.state <> 'completed' THEN m.error_type END,
        CASE WHEN m.state = 'retrying' THEN m.scheduled_at END, m.queue,
        CASE WHEN m.state = 'retrying' THEN ARRAY(
            SELECT DISTINCT i.step_id FROM pg_catalog.jsonb_to_recordset(m.inputs) AS i (step_id bigint)
        ) END
    FROM moved AS m
    WHERE NOT m.releases
), pointed AS (
    INSERT INTO flowstone.current_outputs (asset, partition, step_id)
    SELECT m.asset, m.partition, m.id FROM moved AS m WHERE m.state = 'completed' AND NOT m.is_item
    ORDER BY m.asset, m.partition
    ON CONFLICT (asset, partition) DO UPDATE
    SET step_id = excluded.step_id, committed_at = excluded.committed_at
), read AS (
    INSERT INTO flowstone.lineage (step_id, parameter, upstream_step_id)
    SELECT m.id, i.parameter, i.step_id
    FROM moved AS m
    CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(m.inputs) AS i (parameter text, step_id bigint)
    WHERE m.state = 'completed'
    ON CONFLICT DO NOTHING
), tried_with AS (
    INSERT INTO flowstone.tried_inputs (step_id, upstream_step_id)
    SELECT m.id, i.step_id
    FROM moved AS m
    CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(m.inputs) AS i (step_id bigint)
    WHERE m.state IN ('failed', 'skipped', 'cancelled') AND NOT m.releases
    ON CONFLICT DO NOTHING
), valued AS (
    INSERT INTO flowstone.output_payloads (version, payload)
    SELECT p.version, p.payload
    FROM unnest(%(payload_steps)s::bigint[], %(versions)s::text[], %(payloads)b::bytea[])
        AS p (step_id, version, payload)
    JOIN moved AS m ON m.id = p.step_id AND m.state = 'completed'
    ON CONFLICT DO NOTHING
)
SELECT id, run_id, state, job_id, limits FROM moved;
