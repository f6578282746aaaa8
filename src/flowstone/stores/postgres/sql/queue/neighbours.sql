-- Queues that nodes of other applications serve as well as ours. Both tables are small.
SELECT DISTINCT n.queue
FROM public.oban_producers AS n
JOIN flowstone.workers AS w ON w.kind = 'node' AND w.lost_at IS NULL AND w.queues ? n.queue
    AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
WHERE n.node NOT LIKE 'flowstone@%'
    AND n.updated_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute'
ORDER BY n.queue;
