-- Attempts of a step that are over, in order. Uses attempts_pkey.
SELECT attempt, state, started_at, finished_at, worker, error, error_type, retry_at
FROM flowstone.attempts
WHERE step_id = %(step_id)s
ORDER BY attempt, token;
