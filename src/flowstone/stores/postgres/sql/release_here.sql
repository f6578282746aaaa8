-- Count finished inputs down, as `release` does, and begin what is ready then at once on the worker that commits: it
-- has the inputs at hand, and the row is written once instead of twice. Those that have jobs get one that is at work
-- already. Only first attempts without limits, of runs of the committed attempts, as far as the worker has room, and
-- only where nobody else is kept waiting by that: no job and no step of another run waits on the queue, and none of the
-- same run that is more urgent (or none at all, for a worker that takes nothing ahead). Otherwise they wait to be
-- fetched, in the order of their urgency. Children are locked in the order of their ids, as everywhere. Uses steps_pkey,
-- steps_to_begin, ranges_open and flowstone_available.
WITH finished AS (
    SELECT f.child_id, f.inputs
    -- as a subquery, so that the planner does not count them: for some hundred rows it would read the whole table
    FROM unnest((SELECT %(children)s::bigint[]), (SELECT %(inputs)s::integer[])) AS f (child_id, inputs)
    ORDER BY f.child_id
), locked AS MATERIALIZED (
    SELECT s.id, f.inputs, r.durable, r.max_concurrency, r.paused, s.run_id, s.queue, s.priority,
        (s.job_id = 0 OR s.job_id IS NULL AND r.durable AND s.attempt = 0 AND s.limits IS NULL AND NOT s.has_approvals)
            AND s.waiting_on <= f.inputs AND r.max_concurrency IS NULL AND NOT r.paused
            AND coalesce(s.scheduled_at <= pg_catalog.clock_timestamp(), true)
            AND s.run_id = ANY(%(runs)s::text[]) AS may_begin,
        r.shapes ->> s.asset AS shape, r.keys ->> s.asset AS keys
    FROM finished AS f
    -- one after the other, whatever the planner believes of the table
    CROSS JOIN LATERAL (
        SELECT c.* FROM flowstone.steps AS c
        WHERE c.id = f.child_id AND c.state = 'waiting'
        FOR NO KEY UPDATE
    ) AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
), roomy AS MATERIALIZED (
    SELECT g.run_id, g.queue, q.room
    FROM (
        SELECT l.run_id, l.queue, pg_catalog.max(l.priority) AS priority
        FROM locked AS l
        WHERE l.may_begin
        GROUP BY l.run_id, l.queue
    ) AS g
    JOIN unnest(%(queues)s::text[], %(rooms)s::integer[], %(idle)s::boolean[]) AS q (name, room, idle)
        ON q.name = g.queue
    WHERE EXISTS (SELECT FROM flowstone.workers AS w WHERE w.id = %(worker_id)s AND w.lost_at IS NULL)
        AND NOT EXISTS (SELECT FROM flowstone.queues AS p WHERE p.name = g.queue AND p.paused)
        AND NOT EXISTS (SELECT FROM flowstone.ranges AS a WHERE a.queue = g.queue AND a.is_open)
        -- as values, not as joins: while nobody has counted what is ready, a join reads all of it for each commit
        AND (
            SELECT j.id FROM public.oban_jobs AS j
            WHERE j.state = 'available' AND j.queue = g.queue
                AND j.priority <= CASE WHEN q.idle THEN 32767 ELSE g.priority END
                AND j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
            LIMIT 1
        ) IS NULL
        AND (
            SELECT o.id FROM flowstone.steps AS o
            WHERE o.queue = g.queue AND o.state = 'pending' AND o.job_id = 0 AND o.run_id < g.run_id
            LIMIT 1
        ) IS NULL
        AND (
            SELECT o.id FROM flowstone.steps AS o
            WHERE o.queue = g.queue AND o.state = 'pending' AND o.job_id = 0 AND o.run_id > g.run_id
            LIMIT 1
        ) IS NULL
        AND (
            SELECT o.id FROM flowstone.steps AS o
            WHERE o.queue = g.queue AND o.state = 'pending' AND o.job_id = 0 AND o.run_id = g.run_id
                AND o.priority < CASE WHEN q.idle THEN 32767 ELSE g.priority END
            LIMIT 1
        ) IS NULL
)
UPDATE flowstone.steps AS s
SET waiting_on = s.waiting_on - l.inputs,
    state = CASE
        WHEN l.begins THEN 'running'
        WHEN s.waiting_on > l.inputs THEN 'waiting'
        WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled'
        ELSE 'pending' END,
    job_id = CASE WHEN l.begins AND s.job_id = 0 THEN - s.id
        WHEN s.job_id = 0 THEN 0
        WHEN s.waiting_on <= l.inputs AND l.durable AND l.max_concurrency IS NULL AND NOT l.paused
        THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) END,
    ready_at = CASE WHEN s.job_id = 0 AND s.waiting_on <= l.inputs THEN pg_catalog.clock_timestamp() END,
    attempt = s.attempt + l.begins::integer,
    token = CASE WHEN l.begins THEN pg_catalog.nextval('flowstone.tokens') ELSE s.token END,
    worker = CASE WHEN l.begins THEN %(worker_id)s ELSE s.worker END,
    reason = CASE WHEN l.begins THEN NULL ELSE s.reason END,
    started_at = CASE WHEN l.begins THEN pg_catalog.clock_timestamp() ELSE s.started_at END
-- one row for each of them, joined with nothing of its size: without statistics that would be a loop in a loop
FROM (
    SELECT k.*, coalesce(k.may_begin AND k.place <= o.room, false) AS begins
    FROM (
        SELECT c.*, pg_catalog.row_number() OVER (PARTITION BY c.queue, c.may_begin ORDER BY c.priority, c.id) AS place
        FROM locked AS c
    ) AS k
    LEFT JOIN roomy AS o ON o.run_id = k.run_id AND o.queue = k.queue
) AS l
WHERE s.id = l.id
RETURNING s.id AS step_id, s.asset, s.partition AS partition_key, s.attempt, s.max_attempts, s.token, s.started_at,
    s.forced, s.run_id, s.state, s.job_id, l.durable, s.queue, s.priority, s.snoozes,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - s.placed_at) AS age_seconds, l.shape, l.keys;
