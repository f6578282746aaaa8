-- The newest runs, or one. Uses runs_newest or runs_pkey.
SELECT id, kind, selection, executor, state, priority, max_concurrency, created_at, finished_at, paused,
    retry_of
FROM flowstone.runs
WHERE %(run_id)s::text IS NULL OR id = %(run_id)s
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;
