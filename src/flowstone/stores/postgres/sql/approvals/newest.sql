-- The newest requests, of one state or all. Uses checkpoints_pkey.
SELECT id, step_id, run_id, asset, partition, gate, attempt, message, data, resume, state, on_timeout, created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY id DESC
LIMIT %(limit)s;
