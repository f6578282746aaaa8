-- Add steps to the window of their run. Uses runs_pkey.
UPDATE flowstone.runs SET active_steps = active_steps + %(placed)s WHERE id = %(run_id)s;
