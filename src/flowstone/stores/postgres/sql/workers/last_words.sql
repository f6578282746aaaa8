-- A worker has died, says the process that renewed its lease: it is lost at once, and of these attempts it is known that
-- they had not started. Uses workers_pkey.
UPDATE flowstone.workers
SET lost_at = pg_catalog.clock_timestamp(), unstarted = %(unstarted)s::bigint[]
WHERE id = %(id)s AND lost_at IS NULL;
