-- Forget old ticks; the newest regular one of each automation is in its own row. Scans ticks by age.
DELETE FROM flowstone.ticks
WHERE evaluated_at < coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp())
    - pg_catalog.make_interval(secs => %(older_than_seconds)s)
RETURNING id;
