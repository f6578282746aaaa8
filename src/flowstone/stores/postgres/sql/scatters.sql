-- Steps that discover items: begun, filled, counted, closed, gathered.

-- name: begin
-- Begin, or go on with, the items of a step: the run of the items, held open by its discovery, and its scatter. Only
-- the newest attempt of the step may. For the retry of a run the scatter whose failures are repeated comes along.
-- Uses steps_pkey, runs_pkey, steps_of_target, scatters_pkey.
WITH step AS (
    SELECT s.id, s.asset, s.partition, s.run_id, s.priority, s.queue, s.limits, r.executor, r.durable, r.driver, r.paused,
        r.deps_timeout_seconds, r.retry_of, r.details, r.tags
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.id = %(step_id)s AND s.token = %(token)s AND s.state = 'running'
    FOR NO KEY UPDATE OF s
), previous AS (
    SELECT c.run_id, c.inputs
    FROM step
    JOIN flowstone.steps AS o ON o.asset = step.asset AND o.partition = step.partition AND o.run_id = step.retry_of
    JOIN flowstone.scatters AS c ON c.step_id = o.id
    LIMIT 1
), opened AS (
    INSERT INTO flowstone.runs (
        id, kind, selection, executor, durable, driver, priority, max_concurrency, paused, deps_timeout_seconds,
        created_at, parent, releases_step, allowed_failures, open_steps, details, tags
    )
    SELECT %(run_id)s, %(kind)s, %(selection)s, executor, durable, driver, priority, %(max_concurrency)s, paused,
        deps_timeout_seconds, pg_catalog.clock_timestamp(), run_id, id, %(allowed)s, 1, details, tags
    FROM step
    ON CONFLICT (id) DO NOTHING
), scattered AS (
    INSERT INTO flowstone.scatters AS c (run_id, step_id, token, inputs)
    SELECT %(run_id)s, step.id, %(token)s, previous.inputs
    FROM step
    LEFT JOIN previous ON true
    ON CONFLICT (run_id) DO UPDATE SET token = excluded.token, is_reopened = true
)
SELECT step.priority, step.queue, step.limits, step.durable, step.partition AS partition_key,
    previous.run_id AS previous
FROM step
LEFT JOIN previous ON true;

-- name: known
-- Which of these items a scatter has, and under which attempt they were discovered last. Uses steps_of_run,
-- steps_of_target, see `catalog/resolve`, and scatter_items_pkey.
SELECT g.position, i.step_id, i.token
FROM unnest(%(positions)s::bigint[], %(partitions)s::text[]) AS g (position, partition)
JOIN flowstone.steps AS s ON s.asset = %(asset)s AND s.partition = g.partition AND s.run_id = %(run_id)s
    AND s.id >= (
        SELECT CASE WHEN f.run_id = %(run_id)s THEN f.id END FROM flowstone.steps AS f
        WHERE f.run_id >= %(run_id)s ORDER BY f.run_id, f.id LIMIT 1
    )
JOIN flowstone.scatter_items AS i ON i.step_id = s.id;

-- name: insert_items
-- Make steps of new items, in one statement. What an earlier scatter has a value for, from the same item, is reused;
-- of the others the first get a job each, as far as the window has room. Uses steps_of_run, steps_of_target, see
-- `catalog/resolve`, and scatter_items_pkey.
WITH given AS (
    SELECT g.position, g.partition_key, g.item, o.output_step, o.output, pg_catalog.nextval('flowstone.step_ids') AS id,
        pg_catalog.row_number() OVER (PARTITION BY o.output_step IS NULL ORDER BY g.position) AS number
    FROM pg_catalog.jsonb_to_recordset(%(items)s) AS g (position bigint, partition_key text, item text)
    LEFT JOIN LATERAL (
        SELECT s.output_step, s.output
        FROM flowstone.steps AS s
        JOIN flowstone.scatter_items AS i ON i.step_id = s.id AND i.item = g.item
        WHERE s.asset = %(asset)s AND s.partition = g.partition_key AND s.run_id = %(previous)s
            AND s.id >= (
                SELECT CASE WHEN f.run_id = %(previous)s THEN f.id END FROM flowstone.steps AS f
                WHERE f.run_id >= %(previous)s ORDER BY f.run_id, f.id LIMIT 1
            )
            AND s.state IN ('completed', 'reused')
        LIMIT 1
    ) AS o ON true
), placed AS (
    INSERT INTO flowstone.steps (
        id, run_id, asset, partition, state, priority, queue, max_attempts, forced, job_id, output_step, output,
        code_version, created_at, limits, is_item, finished_at
    )
    SELECT g.id, %(run_id)s, %(asset)s, g.partition_key, CASE WHEN g.output_step IS NULL THEN 'pending' ELSE 'reused' END,
        %(priority)s, %(queue)s, %(max_attempts)s, true,
        CASE WHEN g.output_step IS NULL AND g.number <= %(room)s
            THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) END,
        g.output_step, g.output, %(code_version)s, pg_catalog.clock_timestamp(), %(limits)s, true,
        CASE WHEN g.output_step IS NOT NULL THEN pg_catalog.clock_timestamp() END
    FROM given AS g
    ORDER BY g.position
    RETURNING id, job_id, finished_at
), itemed AS (
    INSERT INTO flowstone.scatter_items (step_id, run_id, position, token, item)
    SELECT g.id, %(run_id)s, g.position, %(token)s, g.item
    FROM given AS g
)
SELECT id, job_id, finished_at IS NULL AS is_open FROM placed ORDER BY id;

-- name: unplaced_items
-- Items of some runs that have no job and are not at work: nobody has to be waited for. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = ANY(%(runs)s::text[]) AND finished_at IS NULL AND job_id IS NULL
    AND state IN ('waiting', 'scheduled', 'pending', 'retrying')
ORDER BY id
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED;

-- name: count_added
-- Add new items to the counters of their run. Uses runs_pkey.
UPDATE flowstone.runs
SET open_steps = open_steps + %(opened)s, active_steps = active_steps + %(placed)s, total_steps = total_steps + %(total)s
WHERE id = %(run_id)s;

-- name: wake
-- Wake resting jobs; returns them with their queues. Uses oban_jobs_pkey.
UPDATE public.oban_jobs
SET state = 'available', scheduled_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
WHERE id = ANY(%(jobs)s::bigint[]) AND state = 'suspended'
RETURNING id, queue;

-- name: release
-- Let steps go on whose items are over. One that waits without a job, because there was none or it was taken away,
-- gets a new one. Uses steps_pkey and runs_pkey.
WITH chosen AS (
    SELECT s.id, r.durable
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.id = ANY(%(steps)s::bigint[]) AND s.state = 'waiting'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET state = 'pending',
    reason = NULL,
    job_id = CASE WHEN c.durable THEN coalesce(
        s.job_id, pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
    ) END
FROM chosen AS c
WHERE s.id = c.id
RETURNING s.id, s.job_id;

-- name: page
-- Items of a scatter in some states, in the order of discovery, from a position on; a small value comes along.
-- Uses scatter_items_in_order, steps_pkey, output_payloads_pkey.
SELECT i.position, i.step_id, s.partition AS partition_key, i.item, s.state, s.attempt, s.output, p.payload, s.error,
    s.error_type
FROM flowstone.scatter_items AS i
JOIN flowstone.steps AS s ON s.id = i.step_id
LEFT JOIN flowstone.output_payloads AS p
    ON p.version = pg_catalog.substr(s.output ->> 'location', 8) AND s.output ->> 'location' LIKE 'inline:%%'
WHERE i.run_id = %(run_id)s AND i.position > %(after)s AND s.state = ANY(%(states)s::text[])
ORDER BY i.position
LIMIT %(limit)s;

-- name: items
-- What some item steps work on. Uses scatter_items_pkey.
SELECT step_id, item FROM flowstone.scatter_items WHERE step_id = ANY(%(steps)s::bigint[]);

-- name: open_items
-- Items of some runs that are not over and not asked to stop. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = ANY(%(runs)s::text[]) AND finished_at IS NULL AND state <> 'cancelling'
ORDER BY id
LIMIT %(limit)s;

-- name: counts
-- Number of items of a scatter in each state. Uses scatter_items_in_order and steps_pkey.
SELECT s.state, pg_catalog.count(*) AS number
FROM flowstone.scatter_items AS i
JOIN flowstone.steps AS s ON s.id = i.step_id
WHERE i.run_id = %(run_id)s
GROUP BY s.state;

-- name: lock
-- Lock a step that discovers, and the run of its items; nothing comes back for an attempt that was superseded.
-- Uses steps_pkey and runs_pkey.
SELECT greatest(0, r.max_concurrency - r.active_steps) AS room, r.paused AS is_paused,
    r.allowed_failures IS NOT NULL AND r.failures > r.allowed_failures AS is_exceeded
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = %(run_id)s
WHERE s.id = %(step_id)s AND s.token = %(token)s AND s.state = 'running'
FOR NO KEY UPDATE OF s, r;

-- name: close
-- Note that the items of some steps are all discovered; returns the runs of the items, and whether this closed them.
-- Uses scatters_step_id_key and runs_pkey.
WITH given AS (
    SELECT g.step_id, g.total, g.allowed, g.inputs, g.is_complete
    FROM pg_catalog.jsonb_to_recordset(%(scattered)s) AS g (
        step_id bigint, total bigint, allowed bigint, inputs jsonb, is_complete boolean
    )
), closed AS (
    UPDATE flowstone.scatters AS c
    SET is_open = false, total = g.total, inputs = coalesce(c.inputs, g.inputs)
    FROM given AS g
    WHERE c.step_id = g.step_id AND c.is_open
    RETURNING c.run_id, g.allowed
), allowed AS (
    UPDATE flowstone.runs AS r SET allowed_failures = c.allowed FROM closed AS c WHERE r.id = c.run_id
)
SELECT c.run_id, closed.run_id IS NOT NULL AS is_closed, c.is_reopened AND g.is_complete AS may_have_lost
FROM given AS g
JOIN flowstone.scatters AS c ON c.step_id = g.step_id
LEFT JOIN closed ON closed.run_id = c.run_id;

-- name: forgive
-- Failures of items that vanished count no more. Uses runs_pkey.
UPDATE flowstone.runs SET failures = failures - %(failures)s WHERE id = %(run_id)s;

-- name: rest
-- Let the jobs of steps rest while their items run; suspended is a state that Oban's stager leaves alone.
-- Uses steps_pkey and oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET state = 'suspended'
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND j.id = s.job_id AND s.state = 'waiting';

-- name: stopping
-- Runs of items that are to be cancelled, and are not over. Uses scatters_stopping and runs_pkey.
SELECT c.run_id
FROM flowstone.scatters AS c
JOIN flowstone.runs AS r ON r.id = c.run_id AND r.state = 'running'
WHERE c.is_stopping
ORDER BY c.run_id;

-- name: stop
-- Note that the items of some runs are to be cancelled. Uses scatters_pkey.
UPDATE flowstone.scatters SET is_stopping = true WHERE run_id = ANY(%(runs)s::text[]);

-- name: abandon
-- End the discovery of scatters whose steps are over; returns those that were held open by it. Uses scatters_pkey.
UPDATE flowstone.scatters SET is_open = false WHERE run_id = ANY(%(runs)s::text[]) AND is_open RETURNING run_id;

-- name: blocked
-- Whether items of an earlier run of a target were cancelled and have not ended yet: their keys are taken so long.
-- Uses steps_of_target, scatters_step_id_key, runs_pkey.
SELECT EXISTS (
    SELECT
    FROM flowstone.steps AS s
    JOIN flowstone.steps AS o ON o.asset = s.asset AND o.partition = s.partition AND o.id < s.id
    JOIN flowstone.scatters AS c ON c.step_id = o.id
    JOIN flowstone.runs AS r ON r.id = c.run_id
    WHERE s.id = %(step_id)s AND r.state = 'running'
);

-- name: left_behind
-- Runs of items whose step ended without them: nobody will gather. Uses scatters_step_id_key and runs_pkey.
SELECT c.run_id
FROM flowstone.scatters AS c
JOIN flowstone.runs AS r ON r.id = c.run_id AND r.state = 'running'
WHERE c.step_id = ANY(%(steps)s::bigint[])
ORDER BY c.run_id;

-- name: missing_jobs
-- Which of these jobs are not there. Uses oban_jobs_pkey.
SELECT m.job FROM unnest(%(jobs)s::bigint[]) AS m (job)
WHERE NOT EXISTS (SELECT FROM public.oban_jobs AS j WHERE j.id = m.job);

-- name: vanished
-- Let go of items that the last attempt to discover did not find any more; returns their steps and states.
-- Uses scatter_items_in_order and steps_pkey.
WITH gone AS (
    DELETE FROM flowstone.scatter_items AS i
    USING flowstone.scatters AS c
    WHERE c.run_id = ANY(%(runs)s::text[]) AND i.run_id = c.run_id AND i.token <> c.token
    RETURNING i.step_id, i.run_id
)
SELECT g.step_id, g.run_id, s.state FROM gone AS g JOIN flowstone.steps AS s ON s.id = g.step_id ORDER BY g.step_id;

-- name: find_again
-- Note that a later attempt found items again, and where. Uses scatter_items_pkey.
UPDATE flowstone.scatter_items AS i
SET position = g.position, token = %(token)s
FROM unnest(%(steps)s::bigint[], %(positions)s::bigint[]) AS g (step_id, position)
WHERE i.step_id = g.step_id;

-- name: of_run
-- The scatter of a run of items. Uses scatters_pkey and runs_pkey.
SELECT c.run_id, c.step_id, c.is_open, r.state <> 'running' AS is_over, c.total, r.allowed_failures AS allowed, c.inputs
FROM flowstone.scatters AS c
JOIN flowstone.runs AS r ON r.id = c.run_id
WHERE c.run_id = %(run_id)s;

-- name: of_steps
-- The scatters of some steps. Uses scatters_step_id_key and runs_pkey.
SELECT c.run_id, c.step_id, c.is_open, r.state <> 'running' AS is_over, c.total, r.allowed_failures AS allowed, c.inputs
FROM flowstone.scatters AS c
JOIN flowstone.runs AS r ON r.id = c.run_id
WHERE c.step_id = ANY(%(steps)s::bigint[]);
