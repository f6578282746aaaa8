-- The scatter of a run of items. Uses scatters_pkey and runs_pkey.
SELECT c.run_id, c.step_id, c.is_open, r.state <> 'running' AS is_over, c.total, r.allowed_failures AS allowed, c.inputs
FROM flowstone.scatters AS c
JOIN flowstone.runs AS r ON r.id = c.run_id
WHERE c.run_id = %(run_id)s;
