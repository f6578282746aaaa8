-- Steps that should be on the queue but have no row there: their job was deleted, or a crash of the database lost what
-- notified of it. One that was cancelled there was not lost, see operators/cancelled_left. Found by the sweep only. Uses steps_one_active and oban_jobs_pkey.
UPDATE flowstone.steps AS s
SET job_id = pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')),
    state = CASE WHEN s.state = 'retrying' THEN s.state
        WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled' ELSE 'pending' END
FROM (
    SELECT p.id
    FROM flowstone.steps AS p
    JOIN flowstone.runs AS r ON r.id = p.run_id AND r.durable
    WHERE p.finished_at IS NULL
        AND p.state IN ('pending', 'scheduled', 'retrying', 'waiting')
        AND p.job_id IS NOT NULL
        AND NOT EXISTS (
            SELECT FROM public.oban_jobs AS j
            WHERE j.id = p.job_id AND j.state IN ('available', 'scheduled', 'retryable', 'executing', 'suspended', 'cancelled')
        )
    ORDER BY p.id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF p SKIP LOCKED
) AS lost
WHERE s.id = lost.id
RETURNING s.id;
