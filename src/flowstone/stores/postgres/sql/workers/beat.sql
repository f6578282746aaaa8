-- Renew a lease; returns nothing when the worker was declared lost meanwhile. It does not wait for a slow disk or for
-- a standby: after a restart of the database every worker gets a full lease anyway. Uses workers_pkey.
UPDATE flowstone.workers SET beat_at = pg_catalog.clock_timestamp()
WHERE id = %(id)s AND lost_at IS NULL
    AND pg_catalog.set_config('synchronous_commit', 'off', true) = 'off'
RETURNING id;
