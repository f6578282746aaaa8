-- What living workers and applications declare of their assets. Uses workers_pkey.
SELECT w.id, w.kind, w.assets
FROM flowstone.workers AS w
WHERE w.lost_at IS NULL AND w.id <> %(but)s
    AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
ORDER BY w.started_at;
