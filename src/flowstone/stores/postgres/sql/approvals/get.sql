-- Requests for approval by their ids. Uses checkpoints_pkey.
SELECT id, step_id, run_id, asset, partition, gate, attempt, message, data, resume, state, on_timeout, created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE id = ANY(%(ids)s::bigint[])
ORDER BY id;
