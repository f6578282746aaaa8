-- Delete jobs of ours that ended long ago; those of others are their owners' to keep. A worker that has read through
-- the older ones before starts where it stopped. Uses oban_jobs_completed_at_index, oban_jobs_cancelled_at_index and
-- oban_jobs_discarded_at_index.
WITH bounds AS (
    SELECT n.now - pg_catalog.make_interval(secs => %(older_than_seconds)s) AS until,
        coalesce(n.now - pg_catalog.make_interval(secs => %(examined_before_seconds)s), '-infinity') AS since
    FROM pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) AS n (now)
), old AS (
    SELECT j.id
    FROM bounds AS b, public.oban_jobs AS j
    WHERE j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
        AND (
            (j.state = 'completed' AND j.completed_at BETWEEN b.since AND b.until)
            OR (j.state = 'cancelled' AND j.cancelled_at BETWEEN b.since AND b.until)
            OR (j.state = 'discarded' AND j.discarded_at BETWEEN b.since AND b.until)
        )
    LIMIT %(limit)s
    FOR UPDATE OF j SKIP LOCKED
)
DELETE FROM public.oban_jobs AS j USING old WHERE j.id = old.id;
