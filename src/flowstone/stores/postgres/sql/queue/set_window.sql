-- Correct the counter of a run's window. Uses runs_pkey.
UPDATE flowstone.runs SET active_steps = %(placed)s WHERE id = %(run_id)s;
