-- How many ticks automations/prune_ticks would forget. Scans ticks by age.
SELECT pg_catalog.count(*)
FROM flowstone.ticks
WHERE evaluated_at < coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp())
    - pg_catalog.make_interval(secs => %(older_than_seconds)s);
