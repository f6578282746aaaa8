-- What pages ask about workers, queues and limits. Ages are those of the database's clock, which has written the times as
-- well, and never negative. Counting what waits stops at 10,001. Where an index is searched by time, the time is that of the
-- statement: an index cannot be searched by a clock that goes on meanwhile.

-- name: workers
-- Processes with a lease, and those that lost it within the last day: rows of both are few. Uses steps_at_work.
SELECT w.id, w.kind, w.host, w.pid, w.queues, w.started_at, w.beat_at,
    greatest(0.0, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - w.beat_at)) AS beat_age_seconds,
    w.lease_seconds, w.lost_at, w.version,
    (
        SELECT pg_catalog.count(*) FROM flowstone.steps AS s
        WHERE s.worker = w.id AND s.state IN ('running', 'cancelling')
    ) AS running
FROM flowstone.workers AS w
ORDER BY w.lost_at IS NOT NULL, w.started_at, w.id
LIMIT %(limit)s;

-- name: running
-- Steps at work, of all workers or of one, those that have run longest first. Uses steps_at_work.
SELECT s.worker, s.id AS step_id, s.run_id, s.asset, s.partition AS partition_key,
    CASE WHEN s.job_id IS NULL THEN '' ELSE s.queue END AS queue, s.attempt, s.state = 'cancelling' AS cancelling,
    greatest(0.0, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - s.started_at)) AS running_seconds
FROM flowstone.steps AS s
WHERE s.state IN ('running', 'cancelling') AND (%(worker)s::text IS NULL OR s.worker = %(worker)s)
    AND (%(queue)s::text IS NULL OR (s.queue = %(queue)s AND s.job_id IS NOT NULL))
ORDER BY s.started_at, s.id
LIMIT %(limit)s;

-- name: queues
-- Queues as our own tables know them: what was set, who serves them, what runs, what is unstarted of backfills.
-- Uses steps_at_work, ranges_open, steps_to_begin and runs_pkey.
WITH served AS (
    SELECT d.key AS name, pg_catalog.count(*) AS workers,
        pg_catalog.sum(coalesce(q.node_limit, d.value::integer))::bigint AS capacity
    FROM flowstone.workers AS w
    CROSS JOIN LATERAL pg_catalog.jsonb_each_text(w.queues) AS d (key, value)
    LEFT JOIN flowstone.queues AS q ON q.name = d.key
    WHERE w.kind = 'node' AND w.lost_at IS NULL
        AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
    GROUP BY d.key
), running AS (
    SELECT s.queue AS name, pg_catalog.count(*) AS number
    FROM flowstone.steps AS s
    WHERE s.state IN ('running', 'cancelling') AND s.job_id IS NOT NULL
    GROUP BY s.queue
), unstarted AS (
    SELECT u.name, pg_catalog.sum(u.number)::bigint AS number, pg_catalog.min(r.created_at) AS since
    FROM (
        SELECT queue AS name, run_id, pg_catalog.sum(total - begun)::bigint AS number
        FROM flowstone.ranges
        WHERE is_open
        GROUP BY queue, run_id
        UNION ALL
        SELECT queue, run_id, pg_catalog.count(*)
        FROM flowstone.steps
        WHERE state = 'pending' AND job_id = 0
        GROUP BY queue, run_id
    ) AS u
    JOIN flowstone.runs AS r ON r.id = u.run_id
    GROUP BY u.name
)
SELECT name, coalesce(q.paused, false) AS paused, q.node_limit, coalesce(s.workers, 0) AS workers,
    coalesce(s.capacity, 0) AS capacity, coalesce(u.number, 0) AS unstarted, coalesce(r.number, 0) AS running,
    CASE WHEN u.since IS NOT NULL THEN
        greatest(0.0, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - u.since)) END AS oldest_seconds
FROM flowstone.queues AS q
FULL JOIN served AS s USING (name)
FULL JOIN running AS r USING (name)
FULL JOIN unstarted AS u USING (name)
ORDER BY name;

-- name: jobs
-- What waits on Oban's queues, by queue. The queues with available jobs are found from entry to entry of the index.
-- Uses flowstone_available, flowstone_due and oban_jobs_state_queue_priority_scheduled_at_id_index.
WITH RECURSIVE waiting AS (
    (
        SELECT queue FROM public.oban_jobs
        WHERE state = 'available' AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
        ORDER BY queue
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT j.queue FROM public.oban_jobs AS j
        WHERE j.state = 'available' AND j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
            AND j.queue > w.queue
        ORDER BY j.queue
        LIMIT 1
    )
    FROM waiting AS w
    WHERE w.queue IS NOT NULL
), later AS (
    SELECT d.queue, pg_catalog.count(*) AS number
    FROM (
        SELECT queue FROM public.oban_jobs
        WHERE state IN ('scheduled', 'retryable')
            AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
        ORDER BY scheduled_at
        LIMIT %(limit)s
    ) AS d
    GROUP BY d.queue
), nodes AS (
    SELECT queue, pg_catalog.count(*) FILTER (WHERE meta ->> 'paused' = 'true') AS paused
    FROM public.oban_producers
    WHERE node LIKE 'flowstone@%%' AND NOT meta ? 'shutdown_started_at'
        AND updated_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute'
    GROUP BY queue
), named AS (
    SELECT queue FROM waiting WHERE queue IS NOT NULL
    UNION SELECT queue FROM later
    UNION SELECT unnest(%(queues)s::text[])
)
SELECT n.queue, coalesce(a.number, 0) AS available, coalesce(l.number, 0) AS later,
    CASE WHEN o.since IS NOT NULL THEN greatest(0.0, pg_catalog.date_part(
        'epoch', pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - o.since
    )) END AS oldest_seconds,
    coalesce(f.number, 0) AS foreign_jobs, coalesce(p.paused, 0) AS paused_workers
FROM named AS n
LEFT JOIN later AS l ON l.queue = n.queue
LEFT JOIN nodes AS p ON p.queue = n.queue
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS number
    FROM (
        SELECT FROM public.oban_jobs AS j
        WHERE j.state = 'available' AND j.queue = n.queue
            AND j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
        LIMIT %(limit)s
    ) AS c
) AS a
CROSS JOIN LATERAL (
    -- the oldest of each priority stands at the beginning of its entries
    SELECT pg_catalog.min(e.scheduled_at) AS since
    FROM pg_catalog.generate_series(0, 9) AS g (priority)
    CROSS JOIN LATERAL (
        SELECT j.scheduled_at FROM public.oban_jobs AS j
        WHERE j.state = 'available' AND j.queue = n.queue AND j.priority = g.priority
            AND j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
        ORDER BY j.scheduled_at
        LIMIT 1
    ) AS e
) AS o
CROSS JOIN LATERAL (
    -- among the first ones: what stands behind them is not looked for
    SELECT pg_catalog.count(*) AS number
    FROM (
        SELECT j.worker FROM public.oban_jobs AS j
        WHERE j.state = 'available' AND j.queue = n.queue
        ORDER BY j.priority, j.scheduled_at, j.id
        -- a limit that the planner does not know: else it sorts the whole queue where that seems to cost the same
        LIMIT (SELECT 1000)
    ) AS c
    WHERE c.worker NOT IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
) AS f
ORDER BY n.queue;

-- name: flow
-- What ended on some queues within the last ten minutes, the newest 5,000 of each, and what started. Uses attempts_ended and
-- steps_at_work.
SELECT n.queue, greatest(1.0, CASE WHEN e.counted < 5000 THEN 600.0
        ELSE pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - e.since) END) AS seconds,
    e.ended, e.failed, e.started + (
        SELECT pg_catalog.count(*) FROM flowstone.steps AS s
        WHERE s.state IN ('running', 'cancelling') AND s.queue = n.queue AND s.job_id IS NOT NULL
            AND s.started_at >= coalesce(e.since, '-infinity')
            AND s.started_at >= pg_catalog.statement_timestamp() - interval '10 minutes'
    ) AS started
FROM unnest(%(queues)s::text[]) AS n (queue)
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS counted, pg_catalog.min(c.finished_at) AS since,
        pg_catalog.count(*) AS ended, pg_catalog.count(*) FILTER (WHERE c.state = 'failed') AS failed,
        pg_catalog.count(*) FILTER (WHERE c.started_at >= pg_catalog.statement_timestamp() - interval '10 minutes') AS started
    FROM (
        SELECT a.finished_at, a.state, a.started_at FROM flowstone.attempts AS a
        WHERE a.queue = n.queue AND a.finished_at >= pg_catalog.statement_timestamp() - interval '10 minutes'
        ORDER BY a.finished_at DESC
        LIMIT 5000
    ) AS c
) AS e
ORDER BY n.queue;

-- name: waits
-- How long the last steps of some queues had waited for a worker: those that ended within the last hour, the newest of each,
-- as far as their jobs are still there. Steps of large backfills have no job: their turn comes with a worker's room.
-- Uses attempts_ended, attempts_pkey, steps_pkey and oban_jobs_pkey.
SELECT w.queue, CASE WHEN %(by_minute)s THEN w.minute END AS minute, pg_catalog.count(*) AS number,
    pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY w.seconds) AS p50,
    pg_catalog.percentile_cont(0.95) WITHIN GROUP (ORDER BY w.seconds) AS p95
FROM (
    SELECT n.queue, pg_catalog.date_bin('1 minute', c.finished_at, '2000-01-01Z') AS minute,
        greatest(0.0, pg_catalog.date_part(
            'epoch', c.started_at - greatest(pg_catalog.timezone('UTC', j.scheduled_at), s.placed_at)
        )) AS seconds
    FROM unnest(%(queues)s::text[]) AS n (queue)
    CROSS JOIN LATERAL (
        SELECT a.step_id, a.finished_at, a.started_at FROM flowstone.attempts AS a
        WHERE a.queue = n.queue AND a.finished_at >= pg_catalog.statement_timestamp() - interval '1 hour'
        ORDER BY a.finished_at DESC
        LIMIT %(limit)s
    ) AS c
    JOIN flowstone.steps AS s ON s.id = c.step_id AND s.job_id > 0
    JOIN public.oban_jobs AS j ON j.id = s.job_id
) AS w
GROUP BY w.queue, CASE WHEN %(by_minute)s THEN w.minute END
ORDER BY w.queue, 2;

-- name: minutes
-- What ended in each minute since a time, by queue: the newest 300,000 of each. Reads attempts_ended alone.
WITH RECURSIVE queues AS (
    (SELECT a.queue FROM flowstone.attempts AS a WHERE a.queue IS NOT NULL ORDER BY a.queue LIMIT 1)
    UNION ALL
    SELECT (
        SELECT a.queue FROM flowstone.attempts AS a WHERE a.queue > q.queue ORDER BY a.queue LIMIT 1
    )
    FROM queues AS q
    WHERE q.queue IS NOT NULL
)
SELECT m.minute, q.queue, m.ended, m.failed
FROM queues AS q
CROSS JOIN LATERAL (
    SELECT pg_catalog.date_bin('1 minute', c.finished_at, '2000-01-01Z') AS minute, pg_catalog.count(*) AS ended,
        pg_catalog.count(*) FILTER (WHERE c.state = 'failed') AS failed
    FROM (
        SELECT a.finished_at, a.state FROM flowstone.attempts AS a
        WHERE a.queue = q.queue AND a.finished_at >= %(since)s::timestamptz
        ORDER BY a.finished_at DESC
        LIMIT 300000
    ) AS c
    GROUP BY 1
) AS m
WHERE q.queue IS NOT NULL
ORDER BY m.minute, q.queue;

-- name: limits
-- Named limits, how much of them is taken, and who waits. Uses slots_pkey, steps_parked and breakers_pkey.
SELECT l.name, (SELECT pg_catalog.count(*) FROM flowstone.slots AS t WHERE t.limit_name = l.name) AS taken, l.starts,
    (
        SELECT pg_catalog.count(*)
        FROM (SELECT FROM flowstone.steps AS s WHERE s.parked_for = l.name LIMIT %(counted)s) AS p
    ) AS waiting,
    b.failures, b.open_until, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) AS now
FROM flowstone.limits AS l
LEFT JOIN flowstone.breakers AS b ON b.name = l.name
ORDER BY l.name
LIMIT %(limit)s;
