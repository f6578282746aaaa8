-- Queues: what is set for them, how much waits, how much runs. Uses oban_jobs_state_queue_priority_scheduled_at_id_index.
SELECT coalesce(q.name, j.queue) AS name, coalesce(q.paused, false), q.node_limit,
    coalesce(j.available, 0), coalesce(j.scheduled, 0), coalesce(j.executing, 0)
FROM flowstone.queues AS q
FULL JOIN (
    SELECT queue,
        pg_catalog.count(*) FILTER (WHERE state = 'available') AS available,
        pg_catalog.count(*) FILTER (WHERE state IN ('scheduled', 'retryable', 'suspended')) AS scheduled,
        pg_catalog.count(*) FILTER (WHERE state = 'executing') AS executing
    FROM public.oban_jobs
    WHERE state IN ('available', 'scheduled', 'retryable', 'suspended', 'executing')
    GROUP BY queue
) AS j ON j.queue = q.name
ORDER BY 1;
