-- Take withdrawn steps off the window of their run. Uses runs_pkey.
UPDATE flowstone.runs
SET active_steps = greatest(0, active_steps - %(withdrawn)s)
WHERE id = %(run_id)s;
