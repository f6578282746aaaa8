-- One step. Uses steps_pkey.
SELECT s.id, s.run_id, s.asset, s.partition, s.state, s.attempt, s.max_attempts, s.priority, s.queue, r.executor,
    s.created_at, s.scheduled_at, s.started_at, s.finished_at, s.worker, s.error, s.error_type, s.reason, s.output_step,
    s.output AS stored, s.code_version, s.waiting_on, s.forced, s.invalidated_at, s.error_data
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id
WHERE s.id = %(step_id)s;
