-- What pages ask about workers and queues. Ages are those of the database's clock, which has written the times as well,
-- and never negative.

-- name: workers
-- Processes with a lease, and those that lost it within the last day: rows of both are few. Uses workers_pkey.
SELECT w.id, w.kind, w.host, w.pid, w.queues, w.started_at, w.beat_at,
    greatest(0.0, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - w.beat_at)) AS beat_age_seconds,
    w.lease_seconds, w.lost_at
FROM flowstone.workers AS w
ORDER BY w.lost_at IS NOT NULL, w.started_at, w.id
LIMIT %(limit)s;
