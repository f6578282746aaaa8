-- Workers with a valid lease. Uses workers_pkey.
SELECT id, kind, host, pid, queues, started_at, beat_at
FROM flowstone.workers
WHERE lost_at IS NULL AND beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => lease_seconds)
ORDER BY started_at;
