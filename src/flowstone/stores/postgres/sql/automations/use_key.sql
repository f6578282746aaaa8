-- Use a run key and return the id of its run; returns nothing when it was used before and not forgotten since. The run
-- of a forgotten key gets an id of its own. Uses run_keys_pkey.
INSERT INTO flowstone.run_keys AS k (kind, name, run_key, run_id)
VALUES (%(kind)s, %(name)s, %(run_key)s, %(run_id)s)
ON CONFLICT (kind, name, run_key) DO UPDATE
SET run_id = excluded.run_id || '-' || (k.times + 1)::text, times = k.times + 1,
    used_at = pg_catalog.clock_timestamp(), forgotten_at = NULL
WHERE k.forgotten_at IS NOT NULL
RETURNING run_id;
