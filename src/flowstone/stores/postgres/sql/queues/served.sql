-- Queues of workers with a valid lease. Uses workers_pkey.
SELECT DISTINCT q.name
FROM flowstone.workers AS w
CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(w.queues) AS q (name)
WHERE w.kind = 'node' AND w.lost_at IS NULL
    AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
ORDER BY q.name;
