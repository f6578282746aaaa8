-- Renew a lease; returns nothing when the worker was declared lost meanwhile. Uses workers_pkey.
UPDATE flowstone.workers SET beat_at = pg_catalog.clock_timestamp()
WHERE id = %(id)s AND lost_at IS NULL
RETURNING id;
