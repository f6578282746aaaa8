-- Add new steps to the counters of their run. Uses runs_pkey.
UPDATE flowstone.runs
SET open_steps = open_steps + %(opened)s,
    active_steps = active_steps + %(active)s,
    failures = failures + %(failures)s,
    state = CASE WHEN open_steps + %(opened)s > 0 THEN 'running'
        WHEN failures + %(failures)s > 0 THEN 'failed' ELSE 'completed' END,
    finished_at = CASE WHEN open_steps + %(opened)s > 0 THEN NULL ELSE pg_catalog.clock_timestamp() END
WHERE id = %(run_id)s
RETURNING open_steps;
