-- The newest runs, one, those of the items of a run, or those with a tag. Uses runs_newest, runs_pkey or runs_of_parent.
SELECT id, kind, selection, executor, state, priority, max_concurrency, created_at, finished_at, paused,
    retry_of, parent, details, assets,
    state = 'running' AND NOT durable AND NOT EXISTS (
        SELECT FROM flowstone.workers AS w
        WHERE w.id = driver AND w.lost_at IS NULL
            AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
    ) AS process_lost
FROM flowstone.runs
WHERE (%(run_id)s::text IS NULL OR id = %(run_id)s) AND (%(parent)s::text IS NULL OR parent = %(parent)s)
    AND (%(tag)s::text IS NULL OR (tags @> ARRAY[%(tag)s::text] AND parent IS NULL))
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s;
