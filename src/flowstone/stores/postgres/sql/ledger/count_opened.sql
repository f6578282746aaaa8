-- Add new steps to the counters of their run. Uses runs_pkey.
UPDATE flowstone.runs
SET open_steps = open_steps + %(opened)s,
    active_steps = active_steps + %(active)s,
    failures = failures + %(failures)s,
    state = CASE WHEN open_steps + %(opened)s > 0 THEN 'running'
        WHEN failures + %(failures)s > coalesce(allowed_failures, 0) THEN 'failed'
        -- the run was there already, and was cancelled
        WHEN cancellations > 0 THEN 'cancelled'
        ELSE 'completed' END,
    finished_at = CASE WHEN open_steps + %(opened)s > 0 THEN NULL
        ELSE coalesce(finished_at, pg_catalog.clock_timestamp()) END
WHERE id = %(run_id)s
RETURNING open_steps;
