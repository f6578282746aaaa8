-- What people do to many runs, or to many steps of one, at once.

-- name: open_steps
-- Steps of some runs that are not over. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = ANY(%(runs)s::text[]) AND finished_at IS NULL
ORDER BY id;

-- name: with_ranges
-- Which of some runs have partitions that nobody has begun. Uses ranges_of_run.
SELECT DISTINCT run_id FROM flowstone.ranges WHERE run_id = ANY(%(runs)s::text[]) AND is_open ORDER BY run_id;

-- name: mark_cancelled
-- Note that runs were cancelled as a whole; what is over stays what it was. Rows are locked in the order of their ids.
-- Uses runs_pkey.
UPDATE flowstone.runs AS r
SET cancellations = r.cancellations + (r.state = 'running')::integer
FROM (
    SELECT id FROM flowstone.runs WHERE id = ANY(%(runs)s::text[]) ORDER BY id FOR NO KEY UPDATE
) AS o
WHERE r.id = o.id;

-- name: prioritize_jobs
-- Give the waiting jobs of some runs another priority; one that a worker is just taking stays. Workers lock the job before
-- the step, and so does this. Uses steps_of_run and oban_jobs_pkey.
WITH jobs AS (
    SELECT j.id
    FROM flowstone.steps AS s
    JOIN public.oban_jobs AS j ON j.id = s.job_id
    WHERE s.run_id = ANY(%(runs)s::text[]) AND s.finished_at IS NULL
        AND j.state IN ('available', 'scheduled', 'retryable')
    ORDER BY j.id
    FOR UPDATE OF j SKIP LOCKED
)
UPDATE public.oban_jobs AS j SET priority = %(priority)s FROM jobs WHERE j.id = jobs.id;

-- name: prioritize_steps
-- The same for steps that are not over. Uses steps_of_run and steps_pkey.
UPDATE flowstone.steps AS s
SET priority = %(priority)s
FROM (
    SELECT o.id FROM flowstone.steps AS o
    WHERE o.run_id = ANY(%(runs)s::text[]) AND o.finished_at IS NULL AND o.priority <> %(priority)s
    ORDER BY o.id
    FOR NO KEY UPDATE
) AS o
WHERE s.id = o.id;

-- name: prioritize_ranges
-- The same for partitions that nobody has begun. Uses ranges_of_run.
UPDATE flowstone.ranges SET priority = %(priority)s WHERE run_id = ANY(%(runs)s::text[]) AND is_open;

-- name: prioritize_runs
-- The same for the runs; returns those that are not over. Rows are locked in the order of their ids. Uses runs_pkey.
UPDATE flowstone.runs AS r
SET priority = %(priority)s
FROM (
    SELECT id FROM flowstone.runs
    WHERE id = ANY(%(runs)s::text[]) AND state = 'running'
    ORDER BY id
    FOR NO KEY UPDATE
) AS o
WHERE r.id = o.id
RETURNING r.id;

-- name: set_window
-- Change how many steps of a run may be placed at once; returns the room that it has now. A run whose steps workers begin
-- without jobs may have had no window: what is at work of it is counted. Uses runs_pkey and steps_of_run.
UPDATE flowstone.runs
SET max_concurrency = %(window)s,
    active_steps = CASE WHEN max_concurrency IS NOT NULL THEN active_steps ELSE (
        SELECT pg_catalog.count(*) FROM flowstone.steps AS s
        WHERE s.run_id = %(run_id)s AND s.finished_at IS NULL AND s.job_id <> 0
    ) END
WHERE id = %(run_id)s AND state = 'running' AND durable AND (max_concurrency IS NOT NULL OR kind IN ('backfill', 'retry'))
RETURNING CASE WHEN paused THEN 0 ELSE greatest(0, %(window)s - active_steps) END AS room;
