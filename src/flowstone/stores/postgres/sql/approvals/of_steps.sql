-- The requests of some steps in the order in which they were made. Uses checkpoints_of_step.
SELECT id, step_id, run_id, asset, partition, gate, attempt, message, data, resume, state, on_timeout, created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE step_id = ANY(%(steps)s::bigint[])
ORDER BY step_id, id;
