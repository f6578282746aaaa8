-- Jobs in Oban's table: placed, fetched (fetch.sql), staged, ended, pruned; the queues themselves.

-- name: schema
-- Oban's statements create their types in the first schema of the path. The name is quoted.
SET LOCAL search_path TO {schema};

-- name: privileges
-- What a worker does to Oban's tables and this role may not do, as the statements that would let it.
SELECT 'GRANT ' || pg_catalog.string_agg(p.privilege, ', ' ORDER BY p.privilege) || ' ON ' || n.name::text || ' TO '
    || pg_catalog.quote_ident(current_user)
FROM (VALUES (pg_catalog.to_regclass('public.oban_jobs')), (pg_catalog.to_regclass('public.oban_producers'))) AS n (name)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
WHERE NOT pg_catalog.has_table_privilege(n.name::oid, p.privilege)
GROUP BY n.name
ORDER BY n.name::text;

-- name: structure
-- What there is of Oban's tables, whoever made them: from the catalogs alone.
SELECT
    pg_catalog.to_regclass('public.oban_jobs') IS NOT NULL AS has_jobs,
    pg_catalog.to_regclass('public.oban_leaders') IS NOT NULL AS has_leaders,
    pg_catalog.to_regclass('public.oban_producers') IS NOT NULL AS has_producers,
    ARRAY(
        SELECT e.enumlabel::text
        FROM pg_catalog.pg_enum AS e
        WHERE e.enumtypid = pg_catalog.to_regtype('public.oban_job_state')
    ) AS states,
    ARRAY(
        SELECT a.attname::text
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = pg_catalog.to_regclass('public.oban_jobs') AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns,
    ARRAY(
        SELECT i.relname::text
        FROM pg_catalog.pg_index AS x
        JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
        WHERE x.indrelid = pg_catalog.to_regclass('public.oban_jobs') AND x.indisvalid
    ) AS indexes,
    (
        SELECT pg_catalog.pg_get_serial_sequence('public.oban_jobs', a.attname) IS NOT NULL
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = pg_catalog.to_regclass('public.oban_jobs') AND a.attname = 'id'
    ) AS has_sequence,
    (
        SELECT pg_catalog.pg_get_userbyid(c.relowner)
        FROM pg_catalog.pg_class AS c
        WHERE c.oid = pg_catalog.to_regclass('public.oban_jobs')
    ) AS owner,
    current_user::text AS role,
    (
        SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE')
        FROM pg_catalog.pg_class AS c
        WHERE c.oid = pg_catalog.to_regclass('public.oban_jobs')
    ) AS owns,
    pg_catalog.to_regprocedure('public.oban_count_estimate(text, text)') IS NOT NULL AS has_function;

-- name: neighbours
-- Queues that nodes of other applications serve as well as ours. Both tables are small.
SELECT DISTINCT n.queue
FROM public.oban_producers AS n
JOIN flowstone.workers AS w ON w.kind = 'node' AND w.lost_at IS NULL AND w.queues ? n.queue
    AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
WHERE n.node NOT LIKE 'flowstone@%'
    AND n.updated_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute'
ORDER BY n.queue;

-- name: index_available
-- An index of ours on Oban's jobs, over our rows that wait: however many of others stand in a queue of the same name, a
-- poll for work finds ours at once.
CREATE INDEX IF NOT EXISTS flowstone_available ON public.oban_jobs (queue, priority, scheduled_at, id)
WHERE state = 'available' AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry');

-- name: index_due
-- The same for our rows that are due later.
CREATE INDEX IF NOT EXISTS flowstone_due ON public.oban_jobs (scheduled_at, id)
WHERE state IN ('scheduled', 'retryable') AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry');

-- name: place
-- What a transaction does to Oban's table, in one statement, because whoever waits for the commit waits for each of them:
-- 1. Move jobs to the state that follows from that of their steps, and say in Oban's form what failed. What others
-- cancelled with Oban's tools stays so, unless the step came to its end first: then the row says that.
-- `errors` is a list in Oban for Python and an array in Elixir's tables; || appends to both.
-- 2. Put a job on the queue for each of these steps. Attempts are counted by the step; the row says the same, for Oban's
-- own tools, and carries the tags of its asset and its run. That of a step that began with a commit is at work from the
-- start.
-- 3. Notify Oban's nodes of the queues that have something to do now, and of those given.
-- Uses oban_jobs_pkey, steps_pkey, runs_pkey and workers_pkey.
WITH settled AS (
    UPDATE public.oban_jobs AS j
    SET state = e.state::public.oban_job_state,
        attempt = CASE WHEN e.releases THEN greatest(0, j.attempt - 1) ELSE j.attempt END,
        scheduled_at = CASE WHEN e.delay_seconds IS NULL THEN j.scheduled_at
            ELSE pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
                + pg_catalog.make_interval(secs => e.delay_seconds) END,
        errors = CASE WHEN NOT e.failed THEN j.errors ELSE j.errors || (
            SELECT pg_catalog.jsonb_build_object(
                'attempt', s.attempt,
                'at', pg_catalog.to_char(
                    pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
                ),
                'error', pg_catalog.left(coalesce(s.error, s.reason, ''), 5000)
            )
            FROM flowstone.steps AS s
            WHERE s.id = e.step_id
        ) END,
        completed_at = CASE WHEN e.state = 'completed' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
        discarded_at = CASE WHEN e.state = 'discarded' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
        cancelled_at = CASE WHEN e.state = 'cancelled' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END
    FROM pg_catalog.jsonb_to_recordset(%(jobs)s)
        AS e (id bigint, step_id bigint, state text, delay_seconds double precision, releases boolean, failed boolean)
    WHERE j.id = e.id AND (j.state <> 'cancelled' OR e.state IN ('completed', 'discarded', 'cancelled'))
    RETURNING j.queue, j.state
), placed AS (
    INSERT INTO public.oban_jobs (
        id, state, queue, worker, priority, attempt, max_attempts, args, meta, tags, scheduled_at, attempted_at,
        attempted_by
    )
    OVERRIDING SYSTEM VALUE
    SELECT
        s.job_id,
        (CASE WHEN s.state = 'running' THEN 'executing'
            WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled' ELSE 'available' END)::public.oban_job_state,
        s.queue, %(worker)s, s.priority, least(s.attempt, 32766),
        least(greatest(s.max_attempts, s.attempt + (s.state <> 'running')::integer), 32767),
        pg_catalog.jsonb_build_object('step', s.id, 'asset', s.asset, 'partition', s.partition, 'run', s.run_id),
        pg_catalog.jsonb_build_object('asset', s.asset, 'partition', s.partition, 'run', s.run_id)
            || CASE WHEN r.details ->> 'traceparent' IS NULL THEN '{}'
                ELSE pg_catalog.jsonb_build_object('traceparent', r.details ->> 'traceparent') END,
        coalesce(s.tags, '{}') || r.tags,
        pg_catalog.timezone('UTC', coalesce(s.scheduled_at, pg_catalog.clock_timestamp())),
        CASE WHEN s.state = 'running' THEN pg_catalog.timezone('UTC', s.started_at) END,
        CASE WHEN s.state = 'running' THEN ARRAY[w.host, w.id] ELSE '{}' END
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
    LEFT JOIN flowstone.workers AS w ON w.id = s.worker
    WHERE s.id = ANY(%(steps)s::bigint[]) AND s.job_id IS NOT NULL
    ORDER BY s.id
    RETURNING queue, state
)
SELECT pg_catalog.pg_notify('public.oban_insert', pg_catalog.jsonb_build_object('queue', q.queue)::text)
FROM (
    SELECT queue FROM settled WHERE state = 'available'
    UNION SELECT queue FROM placed WHERE state = 'available'
    UNION SELECT unnest(%(queues)s::text[])
) AS q;

-- name: notify_inserted
-- Notify Oban's nodes, on Oban's own channel; one statement per batch, because NOTIFY takes a lock of the whole server at
-- commit.
SELECT pg_catalog.pg_notify('public.oban_insert', m.payload) FROM unnest(%(payloads)s::text[]) AS m (payload);

-- name: stage
-- Make jobs of ours available that are due, as Oban's stager does for everybody's, and say which of these queues have
-- work for us. Uses flowstone_due (else oban_jobs_staging_index) and flowstone_available.
WITH due AS (
    SELECT id
    FROM public.oban_jobs
    WHERE state IN ('scheduled', 'retryable') AND queue = ANY(%(queues)s::text[])
        AND scheduled_at <= pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
        AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
    ORDER BY scheduled_at, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), staged AS (
    UPDATE public.oban_jobs AS j SET state = 'available' FROM due WHERE j.id = due.id RETURNING j.queue
)
SELECT queue FROM staged
UNION
SELECT q.queue
FROM unnest(%(queues)s::text[]) AS q (queue)
WHERE EXISTS (
    SELECT FROM public.oban_jobs AS j
    WHERE j.state = 'available' AND j.queue = q.queue
        AND j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
);

-- name: probe
-- A job as FlowStone writes it, at the edges of what it writes; inserted and rolled back, to see whether the table takes
-- it: checks, triggers, policies and privileges of others show only so.
INSERT INTO public.oban_jobs (
    id, state, queue, worker, priority, attempt, max_attempts, args, meta, tags, scheduled_at
)
OVERRIDING SYSTEM VALUE
VALUES (
    pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')),
    %(state)s::public.oban_job_state, 'flowstone-probe', 'flowstone.executors.oban.job.StepWorker', %(priority)s,
    %(attempt)s, %(max_attempts)s, '{"step": 0}', '{"run": "probe"}', ARRAY['probe'],
    pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
)
RETURNING id;

-- name: probe_end
-- The rest of what is done to a job, to the same end as `queue/probe`.
UPDATE public.oban_jobs
SET state = 'discarded',
    attempted_at = scheduled_at,
    attempted_by = ARRAY['flowstone', 'probe'],
    errors = errors || '{"attempt": 1, "error": "probe"}'::jsonb,
    discarded_at = scheduled_at
WHERE id = %(id)s;

-- name: advance_jobs
-- Let steps that wait for inputs look in a second: whoever joined them may make these. Uses steps_pkey and oban_jobs_pkey.
WITH sooner AS (
    UPDATE public.oban_jobs AS j
    SET scheduled_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) + interval '1 second'
    WHERE j.id = ANY(%(ids)s::bigint[]) AND j.state = 'scheduled'
        AND j.scheduled_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) + interval '1 second'
    RETURNING j.id, j.scheduled_at
)
UPDATE flowstone.steps AS s
SET scheduled_at = pg_catalog.timezone('UTC', n.scheduled_at)
FROM sooner AS n
WHERE s.job_id = n.id AND s.id = ANY(%(steps)s::bigint[]) AND s.state = 'waiting';

-- name: withhold
-- Take jobs that a worker has just taken away from steps whose run is paused: released, woken or due after it was
-- paused. The steps wait for the run to be resumed. Uses steps_pkey.
WITH kept AS (
    UPDATE flowstone.steps AS s
    SET job_id = NULL, state = 'pending', reason = 'its run is paused'
    FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[]) AS g (job_id, step_id), flowstone.runs AS r
    WHERE s.id = g.step_id AND s.job_id = g.job_id
        AND s.state IN ('pending', 'scheduled', 'retrying', 'waiting')
        AND r.id = s.run_id AND r.paused
    RETURNING s.run_id
)
SELECT run_id, pg_catalog.count(*) AS withdrawn FROM kept GROUP BY run_id ORDER BY run_id;

-- name: cancelling
-- Steps of a worker that are to be stopped. Uses steps_at_work.
SELECT id FROM flowstone.steps WHERE worker = %(worker)s AND state = 'cancelling';

-- name: unplaced
-- Steps that should be on the queue but have no row there: their job was deleted, or a crash of the database lost what
-- notified of it. One that was cancelled there was not lost, see operators/cancelled_left. Found by the sweep only. Uses steps_one_active and oban_jobs_pkey.
UPDATE flowstone.steps AS s
SET job_id = pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')),
    state = CASE WHEN s.state = 'retrying' THEN s.state
        WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled' ELSE 'pending' END
FROM (
    SELECT p.id
    FROM flowstone.steps AS p
    JOIN flowstone.runs AS r ON r.id = p.run_id AND r.durable
    WHERE p.finished_at IS NULL
        AND p.state IN ('pending', 'scheduled', 'retrying', 'waiting')
        AND p.job_id <> 0
        AND NOT EXISTS (
            SELECT FROM public.oban_jobs AS j
            WHERE j.id = p.job_id AND j.state IN ('available', 'scheduled', 'retryable', 'executing', 'suspended', 'cancelled')
        )
    ORDER BY p.id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF p SKIP LOCKED
) AS lost
WHERE s.id = lost.id
RETURNING s.id;

-- name: raise_priority
-- Let jobs overtake when a more urgent request joined their steps. Uses oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET priority = u.priority
FROM unnest(%(ids)s::bigint[], %(priorities)s::smallint[]) AS u (id, priority)
WHERE j.id = u.id AND j.state IN ('available', 'scheduled', 'retryable') AND j.priority > u.priority;

-- name: held
-- Attempts that a worker holds by the tables. Uses steps_at_work.
SELECT s.id AS step_id, s.run_id, s.asset, s.partition AS partition_key, s.attempt, s.max_attempts, s.token,
    s.started_at, s.forced
FROM flowstone.steps AS s
WHERE s.worker = %(worker)s AND s.state IN ('running', 'cancelling');

-- name: prune_jobs
-- Delete jobs of ours that ended long ago; those of others are their owners' to keep. A worker that has read through
-- the older ones before starts where it stopped. Uses oban_jobs_completed_at_index, oban_jobs_cancelled_at_index and
-- oban_jobs_discarded_at_index.
WITH bounds AS (
    SELECT n.now - pg_catalog.make_interval(secs => %(older_than_seconds)s) AS until,
        coalesce(n.now - pg_catalog.make_interval(secs => %(examined_before_seconds)s), '-infinity') AS since
    FROM pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) AS n (now)
), old AS (
    SELECT j.id
    FROM bounds AS b, public.oban_jobs AS j
    WHERE j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
        AND (
            (j.state = 'completed' AND j.completed_at BETWEEN b.since AND b.until)
            OR (j.state = 'cancelled' AND j.cancelled_at BETWEEN b.since AND b.until)
            OR (j.state = 'discarded' AND j.discarded_at BETWEEN b.since AND b.until)
        )
    LIMIT %(limit)s
    FOR UPDATE OF j SKIP LOCKED
)
DELETE FROM public.oban_jobs AS j USING old WHERE j.id = old.id;

-- name: forget_producers
-- Remove what workers of ours that are gone have left of themselves; Oban leaves that to a leader, which we do not elect.
DELETE FROM public.oban_producers
WHERE node LIKE 'flowstone@%' AND updated_at < pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute';

-- name: idle_windows
-- Limited runs with room in their window and steps to put there; only a lost refill leaves such a run behind.
-- Uses steps_to_place.
SELECT r.id AS run_id, r.max_concurrency - w.placed AS room, w.placed
FROM flowstone.runs AS r
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS placed
    FROM flowstone.steps AS s
    WHERE s.run_id = r.id AND s.job_id <> 0
        AND s.state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling')
) AS w
WHERE r.durable AND r.state = 'running' AND NOT r.paused AND r.max_concurrency > w.placed
    AND EXISTS (
        SELECT FROM flowstone.steps AS s WHERE s.run_id = r.id AND s.state = 'pending' AND s.job_id IS NULL
    )
ORDER BY r.id
FOR NO KEY UPDATE OF r SKIP LOCKED;

-- name: set_window
-- Correct the counter of a run's window. Uses runs_pkey.
UPDATE flowstone.runs SET active_steps = %(placed)s WHERE id = %(run_id)s;

-- name: list
-- Queues: what is set for them, how many nodes of ours Oban's tools have paused, how much of ours waits and runs. Jobs of
-- other applications in a queue of the same name are theirs. What workers begin without jobs counts too. Uses
-- flowstone_available, flowstone_due, oban_jobs_state_queue_priority_scheduled_at_id_index, steps_to_begin and steps_at_work.
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
    UNION ALL
    SELECT queue, pg_catalog.count(*), 0, 0
    FROM flowstone.steps
    WHERE state = 'pending' AND job_id = 0
    GROUP BY queue
    UNION ALL
    SELECT queue, 0, 0, pg_catalog.count(*)
    FROM flowstone.steps
    WHERE state IN ('running', 'cancelling') AND job_id < 0
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

-- name: served
-- Queues of workers with a valid lease. Uses workers_pkey.
SELECT DISTINCT q.name
FROM flowstone.workers AS w
CROSS JOIN LATERAL pg_catalog.jsonb_object_keys(w.queues) AS q (name)
WHERE w.kind = 'node' AND w.lost_at IS NULL
    AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
ORDER BY q.name;

-- name: set
-- Pause, resume or resize a queue in the whole fleet. Uses queues_pkey.
INSERT INTO flowstone.queues AS q (name, paused, node_limit)
VALUES (%(name)s, coalesce(%(paused)s::boolean, false), %(node_limit)s)
ON CONFLICT (name) DO UPDATE
SET paused = coalesce(%(paused)s::boolean, q.paused),
    node_limit = CASE WHEN %(reset_limit)s THEN NULL ELSE coalesce(excluded.node_limit, q.node_limit) END,
    changed_at = pg_catalog.clock_timestamp();

-- name: limits
-- Queues whose limit per node was changed at run time. Uses queues_pkey.
SELECT name, node_limit FROM flowstone.queues WHERE node_limit IS NOT NULL;
