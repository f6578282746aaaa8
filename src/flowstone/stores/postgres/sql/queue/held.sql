-- Attempts that a worker holds by the tables. Uses steps_at_work.
SELECT s.id AS step_id, s.run_id, s.asset, s.partition, s.attempt, s.max_attempts, s.token, s.started_at, s.forced
FROM flowstone.steps AS s
WHERE s.worker = %(worker)s AND s.state IN ('running', 'cancelling');
