-- Queues: what is set for them, how many nodes of ours Oban's tools have paused, how much of ours waits and runs. Jobs of
-- other applications in a queue of the same name are theirs. Uses flowstone_available, flowstone_due and
-- oban_jobs_state_queue_priority_scheduled_at_id_index.
WITH counted AS (
    SELECT queue, pg_catalog.count(*) AS available, 0 AS scheduled, 0 AS executing
    FROM public.oban_jobs
    WHERE state = 'available' AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
    GROUP BY queue
    UNION ALL
    SELECT queue, 0, pg_catalog.count(*), 0
    FROM public.oban_jobs
    WHERE state IN ('scheduled', 'retryable')
        AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
    GROUP BY queue
    UNION ALL
    SELECT queue, 0, pg_catalog.count(*) FILTER (WHERE state = 'suspended'),
        pg_catalog.count(*) FILTER (WHERE state = 'executing')
    FROM public.oban_jobs
    WHERE state IN ('suspended', 'executing')
        AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
    GROUP BY queue
), jobs AS (
    SELECT queue, pg_catalog.sum(available)::bigint AS available, pg_catalog.sum(scheduled)::bigint AS scheduled,
        pg_catalog.sum(executing)::bigint AS executing
    FROM counted
    GROUP BY queue
), nodes AS (
    SELECT queue, pg_catalog.count(*) AS number, pg_catalog.count(*) FILTER (WHERE meta ->> 'paused' = 'true') AS paused
    FROM public.oban_producers
    WHERE node LIKE 'flowstone@%' AND NOT meta ? 'shutdown_started_at'
        AND updated_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute'
    GROUP BY queue
), declared AS (
    SELECT d.key AS queue, pg_catalog.array_agg(DISTINCT d.value::integer ORDER BY d.value::integer) AS limits
    FROM flowstone.workers AS w
    CROSS JOIN LATERAL pg_catalog.jsonb_each_text(w.queues) AS d (key, value)
    WHERE w.kind = 'node' AND w.lost_at IS NULL
        AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
    GROUP BY d.key
), named AS (
    SELECT name FROM flowstone.queues
    UNION SELECT queue FROM jobs
    UNION SELECT queue FROM nodes WHERE paused > 0
)
SELECT n.name, coalesce(q.paused, false) OR coalesce(o.paused = o.number, false) AS paused, q.node_limit,
    coalesce(j.available, 0) AS available, coalesce(j.scheduled, 0) AS scheduled, coalesce(j.executing, 0) AS executing,
    coalesce(o.paused, 0) AS paused_nodes, coalesce(d.limits, '{}') AS declared_limits
FROM named AS n
LEFT JOIN flowstone.queues AS q ON q.name = n.name
LEFT JOIN jobs AS j ON j.queue = n.name
LEFT JOIN nodes AS o ON o.queue = n.name
LEFT JOIN declared AS d ON d.queue = n.name
ORDER BY 1;
