-- Pause or resume a run; returns what is needed to refill its window. Uses runs_pkey.
UPDATE flowstone.runs SET paused = %(paused)s WHERE id = %(run_id)s
RETURNING durable, max_concurrency, active_steps;
