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
RETURNING s.id, s.run_id, s.state, s.job_id, r.durable;
