-- Requests that nobody has decided, the most urgent first. Uses checkpoints_due.
SELECT id, step_id, run_id, asset, partition, gate, attempt, message, data, resume, state, on_timeout, created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE state = 'pending'
ORDER BY expires_at, id
LIMIT %(limit)s;
