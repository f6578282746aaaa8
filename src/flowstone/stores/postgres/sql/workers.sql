-- Leases of workers and drivers: registered, kept, lost, ended.

-- name: register
-- A worker says that it is there, and what it knows. Uses workers_pkey.
INSERT INTO flowstone.workers (id, kind, host, pid, queues, lease_seconds, assets, version)
VALUES (%(id)s, %(kind)s, %(host)s, %(pid)s, %(queues)s, %(lease_seconds)s, %(assets)s, %(version)s);

-- name: shapes
-- What living workers and applications declare of their assets. Uses workers_pkey.
SELECT w.id, w.kind, w.assets
FROM flowstone.workers AS w
WHERE w.lost_at IS NULL AND w.id <> %(but)s
    AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
ORDER BY w.started_at;

-- name: beat
-- Renew a lease; returns nothing when the worker was declared lost meanwhile. It does not wait for a slow disk or for
-- a standby: after a restart of the database every worker gets a full lease anyway. Uses workers_pkey.
UPDATE flowstone.workers SET beat_at = pg_catalog.clock_timestamp()
WHERE id = %(id)s AND lost_at IS NULL
    AND pg_catalog.set_config('synchronous_commit', 'off', true) = 'off'
RETURNING id;

-- name: alive
-- Workers with a valid lease. Uses workers_pkey.
SELECT id, kind, host, pid, queues, started_at, beat_at
FROM flowstone.workers
WHERE lost_at IS NULL AND beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => lease_seconds)
ORDER BY started_at;

-- name: last_words
-- A worker has died, says the process that renewed its lease: it is lost at once, and of these attempts it is known that
-- they had not started. Uses workers_pkey.
UPDATE flowstone.workers
SET lost_at = pg_catalog.clock_timestamp(), unstarted = %(unstarted)s::bigint[]
WHERE id = %(id)s AND lost_at IS NULL;

-- name: remove
-- A worker leaves in order. Uses workers_pkey.
DELETE FROM flowstone.workers WHERE id = %(id)s;

-- name: held_by_lost
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

-- name: declare_lost
-- Declare workers lost whose lease ran out, by the clock of the database. A row is kept for a day, so that a worker
-- that comes back learns of it. After a restart of the database every worker gets a full lease to come back.
-- Uses workers_pkey.
UPDATE flowstone.workers AS w
SET lost_at = pg_catalog.clock_timestamp()
FROM (
    SELECT id FROM flowstone.workers
    WHERE lost_at IS NULL
        AND pg_catalog.pg_postmaster_start_time()
            < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => lease_seconds)
        AND beat_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => lease_seconds)
    ORDER BY id
    FOR UPDATE SKIP LOCKED
) AS gone
WHERE w.id = gone.id
RETURNING w.id;

-- name: orphans
-- Attempts whose worker is lost or unknown: what a rescue ends. Uses steps_at_work.
SELECT s.id, s.token, s.attempt, s.max_attempts, s.asset, s.worker, r.durable,
    coalesce(s.token = ANY(w.unstarted), false) AS unstarted, s.run_id, s.partition AS partition_key, s.started_at,
    r.details ->> 'traceparent' AS traceparent, r.kind AS run_kind
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id
LEFT JOIN flowstone.workers AS w ON w.id = s.worker
WHERE s.state IN ('running', 'cancelling') AND (w.id IS NULL OR w.lost_at IS NOT NULL)
ORDER BY s.id
LIMIT %(limit)s
FOR NO KEY UPDATE OF s SKIP LOCKED;

-- name: lost_drivers
-- Steps of inline runs whose process is gone: nobody will ever start them. Uses runs_pkey.
SELECT s.id
FROM flowstone.runs AS r
JOIN flowstone.steps AS s ON s.run_id = r.id
LEFT JOIN flowstone.workers AS w ON w.id = r.driver
WHERE r.state = 'running' AND NOT r.durable AND (w.id IS NULL OR w.lost_at IS NOT NULL)
    AND s.state IN ('waiting', 'scheduled', 'pending', 'retrying', 'awaiting_approval')
ORDER BY s.id
LIMIT %(limit)s;

-- name: end_driverless
-- End what nobody will start: steps of inline runs whose process is gone. Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = 'cancelled',
    reason = 'its process was lost before it started',
    error = 'The process ' || coalesce(c.driver, 'that drove this run') || ' was lost before it started this step: it died or lost its lease.',
    error_type = %(error_type)s,
    finished_at = pg_catalog.clock_timestamp()
FROM (
    SELECT o.id, o.state, r.driver
    FROM flowstone.steps AS o
    JOIN flowstone.runs AS r ON r.id = o.run_id
    WHERE o.id = ANY(%(ids)s::bigint[])
        AND o.state IN ('waiting', 'scheduled', 'pending', 'retrying', 'awaiting_approval')
    ORDER BY o.id
    FOR NO KEY UPDATE OF o
) AS c
WHERE s.id = c.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits, c.state = 'awaiting_approval' AS had_requested,
    s.asset, s.partition AS partition_key;

-- name: forget_old
-- Remove the rows of workers that were lost long ago. Uses workers_pkey.
DELETE FROM flowstone.workers WHERE lost_at < pg_catalog.clock_timestamp() - interval '1 day';
