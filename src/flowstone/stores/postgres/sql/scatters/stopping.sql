-- Runs of items that are to be cancelled, and are not over. Uses scatters_stopping and runs_pkey.
SELECT c.run_id
FROM flowstone.scatters AS c
JOIN flowstone.runs AS r ON r.id = c.run_id AND r.state = 'running'
WHERE c.is_stopping
ORDER BY c.run_id;
