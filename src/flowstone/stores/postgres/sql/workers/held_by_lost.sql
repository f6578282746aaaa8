-- Of some steps, those that are not over although whoever has to end them is lost: the process that runs them, or the one
-- that drives their run when no worker may start them. Its lease ran out, or was given up. Uses steps_pkey, workers_pkey.
SELECT s.id
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id
LEFT JOIN flowstone.workers AS w ON w.id = CASE WHEN s.state IN ('running', 'cancelling') THEN s.worker ELSE r.driver END
WHERE s.id = ANY(%(ids)s::bigint[]) AND s.finished_at IS NULL
    AND (s.state IN ('running', 'cancelling') OR NOT r.durable)
    AND (
        w.id IS NULL OR w.lost_at IS NOT NULL OR (
            pg_catalog.pg_postmaster_start_time()
                < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
            AND w.beat_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
        )
    )
LIMIT 1;
