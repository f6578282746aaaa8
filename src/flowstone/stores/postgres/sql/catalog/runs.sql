-- The newest runs, one, those of the items of a run, or those with a tag. Uses runs_newest, runs_pkey or runs_of_parent.
SELECT id, kind, selection, executor, state, priority, max_concurrency, created_at, finished_at, paused,
    retry_of, parent, details, assets
FROM flowstone.runs
WHERE (%(run_id)s::text IS NULL OR id = %(run_id)s) AND (%(parent)s::text IS NULL OR parent = %(parent)s)
    AND (%(tag)s::text IS NULL OR details -> 'tags' ? %(tag)s)
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;
