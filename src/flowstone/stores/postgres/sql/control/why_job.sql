-- What Oban's tables know of a step: the state of its job, how many of ours are before it in its queue, on how many nodes
-- of ours that is paused. Uses oban_jobs_pkey and flowstone_available.
SELECT j.state::text AS job_state,
    (
        SELECT pg_catalog.count(*)
        FROM public.oban_jobs AS o
        WHERE o.state = 'available' AND o.queue = %(queue)s
            AND o.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
            AND (o.priority, o.scheduled_at, o.id) < (j.priority, j.scheduled_at, j.id)
    ) AS ahead,
    (
        SELECT pg_catalog.count(*)
        FROM public.oban_producers AS n
        WHERE n.queue = %(queue)s AND n.node LIKE 'flowstone@%%' AND n.meta ->> 'paused' = 'true'
            AND NOT n.meta ? 'shutdown_started_at'
            AND n.updated_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute'
    ) AS paused_nodes
FROM (SELECT %(job_id)s::bigint AS job_id) AS s
LEFT JOIN public.oban_jobs AS j ON j.id = s.job_id;
