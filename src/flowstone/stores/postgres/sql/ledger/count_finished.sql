-- Take finished steps off the counters of their runs and end the runs that have none left; rows are locked in the
-- order of their ids. Uses runs_pkey.
WITH finished AS (
    SELECT r.id, f.finished, f.placed, f.failures, f.cancellations
    FROM pg_catalog.jsonb_to_recordset(%(runs)s)
        AS f (run_id text, finished bigint, placed bigint, failures bigint, cancellations bigint)
    JOIN flowstone.runs AS r ON r.id = f.run_id
    ORDER BY r.id
    FOR NO KEY UPDATE OF r
)
UPDATE flowstone.runs AS r
SET open_steps = r.open_steps - f.finished,
    active_steps = greatest(0, r.active_steps - f.placed),
    failures = r.failures + f.failures,
    cancellations = r.cancellations + f.cancellations,
    state = CASE
        WHEN r.open_steps > f.finished THEN r.state
        WHEN r.failures + f.failures > coalesce(r.allowed_failures, 0) THEN 'failed'
        WHEN r.cancellations + f.cancellations > 0 THEN 'cancelled'
        ELSE 'completed' END,
    finished_at = CASE WHEN r.open_steps <= f.finished THEN pg_catalog.clock_timestamp() END
FROM finished AS f
WHERE r.id = f.id
RETURNING r.id AS run_id, r.open_steps, r.watched, r.durable, r.max_concurrency, r.active_steps, r.releases_step, r.failures,
    r.allowed_failures;
