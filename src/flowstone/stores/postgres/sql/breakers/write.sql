-- Keep the state of breakers; the caller holds the locks of their limits. Uses breakers_pkey.
INSERT INTO flowstone.breakers AS b (name, failures, opened_at, open_until, next_step)
SELECT c.name, c.failures, CASE WHEN c.open_until IS NOT NULL THEN pg_catalog.clock_timestamp() END,
    pg_catalog.to_timestamp(c.open_until), c.next_step
FROM pg_catalog.jsonb_to_recordset(%(circuits)s)
    AS c (name text, failures integer, open_until double precision, next_step bigint)
ON CONFLICT (name) DO UPDATE
SET failures = excluded.failures,
    -- since the first failure that opened it, whatever was tried in between
    opened_at = CASE WHEN excluded.open_until IS NOT NULL THEN coalesce(b.opened_at, excluded.opened_at) END,
    open_until = excluded.open_until,
    next_step = excluded.next_step;
