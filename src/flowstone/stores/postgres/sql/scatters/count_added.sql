-- Add new items to the counters of their run. Uses runs_pkey.
UPDATE flowstone.runs
SET open_steps = open_steps + %(opened)s, active_steps = active_steps + %(placed)s
WHERE id = %(run_id)s;
