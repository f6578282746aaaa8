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
