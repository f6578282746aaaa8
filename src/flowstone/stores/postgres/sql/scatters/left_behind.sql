-- Runs of items whose step ended without them: nobody will gather. Uses scatters_step_id_key and runs_pkey.
SELECT c.run_id
FROM flowstone.scatters AS c
JOIN flowstone.runs AS r ON r.id = c.run_id AND r.state = 'running'
WHERE c.step_id = ANY(%(steps)s::bigint[])
ORDER BY c.run_id;
