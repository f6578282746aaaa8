-- Which of these steps and of this run are not over. Uses steps_pkey and runs_pkey.
SELECT
    EXISTS (
        SELECT FROM flowstone.steps
        WHERE id = ANY(%(steps)s::bigint[]) AND state IN (
            'waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling'
        )
    ) OR EXISTS (SELECT FROM flowstone.runs WHERE id = %(run_id)s AND state = 'running');
