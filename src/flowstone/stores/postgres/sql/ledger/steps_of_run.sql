-- Ids and jobs of the steps of a run that are not over. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = %(run_id)s
    AND state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling')
ORDER BY id;
