-- The newest runs, one, or those of the items of a run. Uses runs_newest, runs_pkey or runs_of_parent.
SELECT id, kind, selection, executor, state, priority, max_concurrency, created_at, finished_at, paused,
    retry_of, parent
FROM flowstone.runs
WHERE (%(run_id)s::text IS NULL OR id = %(run_id)s) AND (%(parent)s::text IS NULL OR parent = %(parent)s)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;
