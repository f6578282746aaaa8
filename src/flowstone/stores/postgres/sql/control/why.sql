-- What is known of the active step of a target, else of the newest one: its run, the workers of its queue; what Oban's
-- tables say of it, where there are any, is asked by control/why_job.
-- Uses steps_of_target.
SELECT s.id AS step_id, s.state, s.reason, s.waiting_on, s.scheduled_at, s.attempt, s.max_attempts, s.error, s.parked_for,
    s.job_id, s.queue, s.worker, s.started_at, s.run_id, r.paused AS run_paused, r.max_concurrency, r.active_steps, r.durable,
    NULL AS job_state, coalesce(q.paused, false) AS queue_paused,
    (
        SELECT pg_catalog.count(*)
        FROM flowstone.workers AS w
        WHERE w.kind = 'node' AND w.lost_at IS NULL AND w.queues ? s.queue
            AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
    ) AS workers,
    0 AS ahead,
    b.failures AS breaker_failures,
    CASE WHEN b.open_until > pg_catalog.clock_timestamp() THEN b.open_until END AS breaker_open_until,
    0 AS paused_nodes,
    CASE WHEN s.finished_at IS NULL AND (s.state IN ('running', 'cancelling') OR NOT r.durable) AND (
        h.id IS NULL OR h.lost_at IS NOT NULL
        OR h.beat_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => h.lease_seconds)
    ) THEN coalesce(h.id, s.worker, r.driver) END AS lost_holder
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id
LEFT JOIN flowstone.queues AS q ON q.name = s.queue
LEFT JOIN flowstone.workers AS h ON h.id = CASE WHEN s.state IN ('running', 'cancelling') THEN s.worker ELSE r.driver END
LEFT JOIN flowstone.breakers AS b ON b.name = s.parked_for AND b.open_until IS NOT NULL
WHERE s.asset = %(asset)s AND s.partition = %(partition)s
ORDER BY s.state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling') DESC,
    s.id DESC
LIMIT 1;
