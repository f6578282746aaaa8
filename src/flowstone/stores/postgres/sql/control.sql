-- What an operator does and asks: pause, withdraw, prune, rename, explain; and what was done with Oban's own tools.

-- name: pause_run
-- Pause or resume a run; returns what is needed to refill its window. Uses runs_pkey.
UPDATE flowstone.runs SET paused = %(paused)s WHERE id = %(run_id)s
RETURNING durable, max_concurrency, active_steps;

-- name: take_off
-- Take withdrawn steps off the window of their run. Uses runs_pkey.
UPDATE flowstone.runs
SET active_steps = greatest(0, active_steps - %(withdrawn)s)
WHERE id = %(run_id)s;

-- name: withdraw
-- Take the jobs of steps that could start now away from them; they wait for the run to be resumed. The jobs are locked
-- first, as workers do; one that a worker is just taking is not waited for, and what is due later stays where it is:
-- `queue/withhold` sees both. Uses steps_of_run and oban_jobs_pkey.
WITH jobs AS (
    SELECT j.id
    FROM flowstone.steps AS s
    JOIN public.oban_jobs AS j ON j.id = s.job_id
    WHERE s.run_id = %(run_id)s AND s.state IN ('pending', 'retrying') AND s.parked_for IS NULL
        AND j.state = 'available'
    ORDER BY j.id
    FOR UPDATE OF j SKIP LOCKED
), closed AS (
    UPDATE public.oban_jobs AS j
    SET state = 'cancelled', cancelled_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
    FROM jobs
    WHERE j.id = jobs.id
)
UPDATE flowstone.steps AS s
SET job_id = NULL, state = 'pending', reason = 'its run is paused'
FROM jobs
WHERE s.job_id = jobs.id AND s.run_id = %(run_id)s
RETURNING s.id;

-- name: open_inputs
-- Inputs of a step that are not there yet. Uses step_edges_of_child.
SELECT p.id, p.asset, p.partition AS partition_key, p.state
FROM flowstone.step_edges AS e
JOIN flowstone.steps AS p ON p.id = e.parent_id
WHERE e.child_id = %(step_id)s AND p.state NOT IN ('completed', 'reused')
    AND NOT (e.optional AND p.state = 'skipped')
ORDER BY p.id
LIMIT 20;

-- name: why
-- What is known of the active step of a target, else of the newest one: its run, the workers of its queue; what Oban's
-- tables say of it, where there are any, is asked by control/why_job.
-- Uses steps_of_target.
SELECT s.id AS step_id, s.state, s.reason, s.waiting_on, s.scheduled_at, s.attempt, s.max_attempts, s.error, s.parked_for,
    s.job_id, s.queue, s.worker, s.started_at, s.run_id, r.paused AS run_paused, r.max_concurrency, r.active_steps, r.durable,
    NULL AS job_state, coalesce(q.paused, false) AS queue_paused,
    (
        SELECT pg_catalog.count(*)
        FROM flowstone.workers AS w
        WHERE w.kind = 'node' AND w.lost_at IS NULL AND w.queues ? s.queue
            AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
    ) AS workers,
    0 AS ahead,
    b.failures AS breaker_failures,
    CASE WHEN b.open_until > pg_catalog.clock_timestamp() THEN b.open_until END AS breaker_open_until,
    0 AS paused_nodes,
    CASE WHEN s.finished_at IS NULL AND (s.state IN ('running', 'cancelling') OR NOT r.durable) AND (
        h.id IS NULL OR h.lost_at IS NOT NULL
        OR h.beat_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => h.lease_seconds)
    ) THEN coalesce(h.id, s.worker, r.driver) END AS lost_holder
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id
LEFT JOIN flowstone.queues AS q ON q.name = s.queue
LEFT JOIN flowstone.workers AS h ON h.id = CASE WHEN s.state IN ('running', 'cancelling') THEN s.worker ELSE r.driver END
LEFT JOIN flowstone.breakers AS b ON b.name = s.parked_for AND b.open_until IS NOT NULL
WHERE s.asset = %(asset)s AND s.partition = %(partition)s
ORDER BY s.state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling') DESC,
    s.id DESC
LIMIT 1;

-- name: why_job
-- What Oban's tables know of a step: the state of its job, how many of ours are before it in its queue, counted to a
-- limit, on how many nodes of ours that is paused. One that needs no job has the steps of its run before it. Uses
-- oban_jobs_pkey, flowstone_available, steps_pkey and steps_to_begin.
SELECT CASE WHEN s.job_id = 0 THEN 'available' ELSE j.state::text END AS job_state,
    (
        SELECT pg_catalog.count(*)
        FROM (
            SELECT FROM public.oban_jobs AS o
            WHERE o.state = 'available' AND o.queue = %(queue)s
                AND o.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
                AND (o.priority, o.scheduled_at, o.id) < (j.priority, j.scheduled_at, j.id)
            UNION ALL
            SELECT FROM flowstone.steps AS o
            JOIN flowstone.steps AS m ON m.id = %(step_id)s AND m.run_id = o.run_id AND m.job_id = 0
            WHERE o.queue = %(queue)s AND o.state = 'pending' AND o.job_id = 0
                AND (o.priority, o.id) < (m.priority, m.id)
            LIMIT %(counted)s
        ) AS b
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

-- name: ended_runs
-- Runs that ended long ago, the latest first, from a place on, with the number of their steps as far as that is counted.
-- Uses runs_ended and steps_of_run.
SELECT r.id, r.finished_at, n.steps
FROM flowstone.runs AS r
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS steps
    FROM (SELECT FROM flowstone.steps AS s WHERE s.run_id = r.id LIMIT %(counted)s) AS s
) AS n
WHERE r.state <> 'running'
    AND r.finished_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
    AND (r.finished_at, r.id) < (%(before)s::timestamptz, %(before_id)s::text)
ORDER BY r.finished_at DESC, r.id DESC
LIMIT %(limit)s;

-- name: steps_of_runs
-- All steps of some small runs. Uses steps_of_run.
SELECT s.id FROM flowstone.steps AS s WHERE s.run_id = ANY(%(runs)s::text[]);

-- name: steps_of_run
-- The next steps of a run below one, the latest first. Uses steps_of_run.
SELECT s.id
FROM flowstone.steps AS s
WHERE s.run_id = %(run_id)s AND s.id < %(below)s
ORDER BY s.id DESC
LIMIT %(limit)s;

-- part: kept
-- Which of the candidates have to stay: those that something reads which is none of them, and what these were made from.
needed AS (
    SELECT c.id
    FROM candidates AS c
    JOIN flowstone.lineage AS l ON l.upstream_step_id = c.id
    WHERE NOT EXISTS (SELECT FROM candidates AS o WHERE o.id = l.step_id)
    UNION
    SELECT c.id
    FROM candidates AS c
    JOIN flowstone.steps AS u ON u.output_step = c.id AND u.state = 'reused'
    WHERE NOT EXISTS (SELECT FROM candidates AS o WHERE o.id = u.id)
    UNION
    SELECT c.id
    FROM candidates AS c
    -- items are kept as long as the step that gathers them
    JOIN flowstone.steps AS p ON p.id = c.releases_step
    WHERE NOT EXISTS (SELECT FROM candidates AS o WHERE o.id = p.id)
), kept AS (
    SELECT n.id FROM needed AS n
    UNION
    SELECT c.id
    FROM kept AS k
    CROSS JOIN LATERAL (
        SELECT l.upstream_step_id AS id FROM flowstone.lineage AS l WHERE l.step_id = k.id
        UNION ALL
        SELECT s.output_step FROM flowstone.steps AS s WHERE s.id = k.id AND s.state = 'reused'
        UNION ALL
        SELECT i.id
        FROM flowstone.scatters AS f
        JOIN flowstone.steps AS i ON i.run_id = f.run_id
        WHERE f.step_id = k.id
    ) AS above
    JOIN candidates AS c ON c.id = above.id
)

-- name: prunable
-- Which of some steps of runs that ended nothing needs any more, once the others are gone as well: not what load
-- returns, not what a kept step was made from, not what a reused step stands on. They are locked.
-- Uses steps_pkey, runs_pkey, current_outputs_pkey, lineage_pkey, lineage_readers, steps_reused, scatters_of_step.
WITH RECURSIVE candidates AS MATERIALIZED (
    SELECT s.id, CASE WHEN s.output_step = s.id THEN s.output END AS output, r.releases_step
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.id = ANY(%(steps)s::bigint[])
        AND s.state IN ('completed', 'reused', 'failed', 'upstream_failed', 'skipped', 'cancelled')
        -- asked for each step by itself: joined, all of what is in use is read for every batch
        AND s.id IS DISTINCT FROM (
            SELECT c.step_id FROM flowstone.current_outputs AS c
            WHERE c.asset = s.asset AND c.partition = s.partition
        )
    FOR UPDATE OF s SKIP LOCKED
),
-- here: control/kept
SELECT c.id, c.output
FROM candidates AS c
WHERE NOT EXISTS (SELECT FROM kept AS k WHERE k.id = c.id);

-- name: prune_steps
-- Delete steps with everything that is recorded of them. Until when versions of a target are gone is kept: which one was
-- in use before that is not known any more. Uses steps_pkey, attempts_pkey, check_results_of_step, lineage_pkey,
-- tried_inputs_pkey, step_edges_pkey, step_edges_of_child, run_joins_pkey, scatter_items_pkey, logs_pkey,
-- output_changes_pruned, unpublished_step.
WITH versions AS (
    INSERT INTO flowstone.output_changes (asset, partition, kind, at)
    SELECT s.asset, s.partition, 'pruned', pg_catalog.max(s.finished_at)
    FROM flowstone.steps AS s
    WHERE s.id = ANY(%(steps)s::bigint[]) AND s.state = 'completed' AND NOT s.is_item
    GROUP BY s.asset, s.partition
    -- the latest versions go first, so that most of the others change nothing
    HAVING pg_catalog.max(s.finished_at) > coalesce((
        SELECT c.at FROM flowstone.output_changes AS c
        WHERE c.asset = s.asset AND c.partition = s.partition AND c.kind = 'pruned'
    ), '-infinity')
    ORDER BY s.asset, s.partition
    ON CONFLICT (asset, partition) WHERE kind = 'pruned' DO UPDATE SET at = greatest(output_changes.at, excluded.at)
), checks AS (
    DELETE FROM flowstone.check_results WHERE step_id = ANY(%(steps)s::bigint[])
), attempts AS (
    DELETE FROM flowstone.attempts WHERE step_id = ANY(%(steps)s::bigint[])
), checkpoints AS (
    DELETE FROM flowstone.checkpoints WHERE step_id = ANY(%(steps)s::bigint[])
), lineage AS (
    DELETE FROM flowstone.lineage WHERE step_id = ANY(%(steps)s::bigint[])
), tried AS (
    DELETE FROM flowstone.tried_inputs WHERE step_id = ANY(%(steps)s::bigint[])
), parents AS (
    DELETE FROM flowstone.step_edges WHERE parent_id = ANY(%(steps)s::bigint[])
), children AS (
    DELETE FROM flowstone.step_edges
    WHERE child_id = ANY(%(steps)s::bigint[]) AND parent_id <> ALL(%(steps)s::bigint[])
), items AS (
    DELETE FROM flowstone.scatter_items WHERE step_id = ANY(%(steps)s::bigint[])
), joins AS (
    DELETE FROM flowstone.run_joins WHERE step_id = ANY(%(steps)s::bigint[])
), logs AS (
    DELETE FROM flowstone.logs WHERE step_id = ANY(%(steps)s::bigint[])
), unpublished AS (
    DELETE FROM flowstone.unpublished WHERE step_id = ANY(%(steps)s::bigint[])
)
DELETE FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);

-- name: prune_runs
-- Delete runs that ended long ago and have no steps left. Uses steps_of_run, ranges_of_run and scatters_pkey.
WITH old AS (
    SELECT r.id
    FROM flowstone.runs AS r
    WHERE r.state <> 'running'
        AND r.finished_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
        AND NOT EXISTS (SELECT FROM flowstone.steps AS s WHERE s.run_id = r.id)
        AND NOT EXISTS (SELECT FROM flowstone.run_joins AS j WHERE j.run_id = r.id)
), ranges AS (
    DELETE FROM flowstone.ranges AS g USING old WHERE g.run_id = old.id
), scatters AS (
    DELETE FROM flowstone.scatters AS c USING old WHERE c.run_id = old.id
)
DELETE FROM flowstone.runs AS r USING old WHERE r.id = old.id;

-- name: forget_pointers
-- Nothing of an asset is current any more. Uses current_outputs_pkey.
DELETE FROM flowstone.current_outputs WHERE asset = %(asset)s;

-- name: forget_changes
-- Nothing of an asset is recorded any more. Uses output_changes_of_target.
DELETE FROM flowstone.output_changes WHERE asset = %(asset)s;

-- name: needed_versions
-- Which versions of values are committed, or may still be: of steps that are not over and have no later attempt, and
-- of steps whose output this attempt made. Of an attempt that was released and taken up again only the last token counts;
-- the step has none when it was released or revived. Versions of steps that nobody knows here may belong to another
-- database that shares the storage. Uses the primary key of steps.
SELECT v.version
FROM unnest(%(versions)s::text[], %(steps)s::bigint[], %(attempts)s::integer[], %(tokens)s::bigint[])
    AS v (version, step_id, attempt, token)
LEFT JOIN flowstone.steps AS s ON s.id = v.step_id
WHERE s.id IS NULL
    OR (s.finished_at IS NULL AND (
        s.attempt < v.attempt OR s.attempt = v.attempt AND (v.token IS NULL OR s.token <= v.token)
    ))
    OR (s.output IS NOT NULL AND s.attempt = v.attempt AND (v.token IS NULL OR s.token IN (0, v.token)));

-- name: count_prunable
-- What pruning would delete: numbers of steps, runs and values, and the bytes of the values where these are known. The
-- conditions are those of control/prunable and control/prune_runs. Uses steps_of_run, current_outputs_pkey, lineage_readers, steps_reused, run_joins_of_run.
WITH RECURSIVE old AS MATERIALIZED (
    SELECT r.id, r.releases_step
    FROM flowstone.runs AS r
    WHERE r.state <> 'running'
        AND r.finished_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
), candidates AS MATERIALIZED (
    SELECT s.id, CASE WHEN s.output_step = s.id THEN s.output END AS output, old.releases_step
    FROM old
    JOIN flowstone.steps AS s ON s.run_id = old.id
    WHERE s.state IN ('completed', 'reused', 'failed', 'upstream_failed', 'skipped', 'cancelled')
        AND NOT EXISTS (
            SELECT FROM flowstone.current_outputs AS c
            WHERE c.asset = s.asset AND c.partition = s.partition AND c.step_id = s.id
        )
),
-- here: control/kept
, gone AS MATERIALIZED (
    SELECT c.id, c.output
    FROM candidates AS c
    WHERE NOT EXISTS (SELECT FROM kept AS k WHERE k.id = c.id)
)
SELECT
    (SELECT pg_catalog.count(*) FROM gone) AS steps,
    (
        SELECT pg_catalog.count(*)
        FROM old
        WHERE NOT EXISTS (
                SELECT FROM flowstone.steps AS s
                WHERE s.run_id = old.id AND NOT EXISTS (SELECT FROM gone WHERE gone.id = s.id)
            )
            AND NOT EXISTS (
                SELECT FROM flowstone.run_joins AS j
                WHERE j.run_id = old.id AND NOT EXISTS (SELECT FROM gone WHERE gone.id = j.step_id)
            )
    ) AS runs,
    (SELECT pg_catalog.count(gone.output) FROM gone) AS "values",
    (SELECT coalesce(pg_catalog.sum((gone.output ->> 'size_bytes')::bigint), 0)::bigint FROM gone) AS size_bytes;

-- name: of_asset
-- Steps of one asset that are over, with the values that they stored. Uses steps_of_target.
SELECT s.id, CASE WHEN s.output_step = s.id THEN s.output END AS output
FROM flowstone.steps AS s
WHERE s.asset = %(asset)s AND s.finished_at IS NOT NULL
ORDER BY s.id
LIMIT %(limit)s
FOR UPDATE OF s SKIP LOCKED;

-- name: count_of_asset
-- What is recorded of one asset: steps, values, their bytes as far as they are known, and steps that are not over.
-- Uses steps_of_target.
SELECT pg_catalog.count(*) AS steps,
    pg_catalog.count(*) FILTER (WHERE s.output_step = s.id) AS with_value,
    coalesce(pg_catalog.sum((s.output ->> 'size_bytes')::bigint) FILTER (WHERE s.output_step = s.id), 0)::bigint
        AS size_bytes,
    pg_catalog.count(*) FILTER (WHERE s.finished_at IS NULL) AS open_steps
FROM flowstone.steps AS s
WHERE s.asset = %(asset)s;

-- name: rename_asset
-- Give an asset what is recorded under an earlier name; a partition that has a current version under the new name keeps
-- that one. Uses steps_of_target, current_outputs_pkey, check_results_of_asset, automations_pkey.
WITH steps AS (
    UPDATE flowstone.steps SET asset = %(new)s WHERE asset = %(old)s RETURNING id
), gone AS (
    DELETE FROM flowstone.current_outputs WHERE asset = %(old)s RETURNING partition, step_id, committed_at
), pointed AS (
    INSERT INTO flowstone.current_outputs (asset, partition, step_id, committed_at)
    SELECT %(new)s, g.partition, g.step_id, g.committed_at FROM gone AS g ORDER BY g.partition
    ON CONFLICT (asset, partition) DO NOTHING
), checks AS (
    UPDATE flowstone.check_results SET asset = %(new)s WHERE asset = %(old)s
), changes AS (
    UPDATE flowstone.output_changes AS c SET asset = %(new)s
    WHERE c.asset = %(old)s AND NOT (c.kind = 'pruned' AND EXISTS (
        SELECT FROM flowstone.output_changes AS o
        WHERE o.asset = %(new)s AND o.partition = c.partition AND o.kind = 'pruned'
    ))
), requested AS (
    UPDATE flowstone.checkpoints SET asset = %(new)s WHERE asset = %(old)s
), ranged AS (
    UPDATE flowstone.ranges SET asset = %(new)s WHERE asset = %(old)s
), conditions AS (
    UPDATE flowstone.automations AS a SET name = %(new)s
    WHERE a.kind = 'condition' AND a.name = %(old)s
        AND NOT EXISTS (SELECT FROM flowstone.automations AS n WHERE n.kind = a.kind AND n.name = %(new)s)
    RETURNING a.name
), ticked AS (
    UPDATE flowstone.ticks SET name = %(new)s
    WHERE kind = 'condition' AND name = %(old)s AND EXISTS (SELECT FROM conditions)
), logged AS (
    INSERT INTO flowstone.audit (actor, action, subject, details)
    VALUES ('flowstone', 'asset.renamed', 'asset:' || %(new)s::text,
        pg_catalog.jsonb_build_object('from', %(old)s::text))
)
SELECT pg_catalog.count(*) FROM steps;

-- name: rename_state
-- Whether anything is recorded under an earlier name of an asset, and whether it is in use: a step that is not over, a
-- range that nobody has begun, a living worker that knows the old name. Uses steps_of_target, ranges_open, workers_pkey.
SELECT
    EXISTS (SELECT FROM flowstone.steps AS s WHERE s.asset = %(old)s)
        OR EXISTS (SELECT FROM flowstone.automations AS a WHERE a.kind = 'condition' AND a.name = %(old)s) AS is_there,
    EXISTS (SELECT FROM flowstone.steps AS s WHERE s.asset = %(old)s AND s.finished_at IS NULL)
        OR EXISTS (SELECT FROM flowstone.ranges AS g WHERE g.asset = %(old)s AND g.is_open)
        OR EXISTS (
            SELECT FROM flowstone.workers AS w
            WHERE w.kind = 'node' AND w.lost_at IS NULL AND w.assets -> %(old)s::text IS NOT NULL
                AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
        ) AS is_in_use;

-- name: signal
-- Notify Oban's nodes of something, on Oban's own channel.
SELECT pg_catalog.pg_notify('public.oban_signal', m.payload) FROM unnest(%(payloads)s::text[]) AS m (payload);

-- name: paused_producers
-- Nodes of ours on which a queue was paused with Oban's tools. The table of producers is small.
SELECT name, node
FROM public.oban_producers
WHERE queue = %(queue)s AND node LIKE 'flowstone@%%' AND meta ->> 'paused' = 'true'
    AND updated_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute';

-- name: cancelled
-- Jobs of ours that were cancelled with Oban's own tools, whose steps do not know yet: cancelled lately in the table,
-- or, while they ran, by a signal that names them. Uses oban_jobs_cancelled_at_index, oban_jobs_pkey and steps_pkey.
WITH cancelled AS (
    SELECT j.id, CASE WHEN j.args ->> 'step' ~ '^[0-9]{1,18}$' THEN (j.args ->> 'step')::bigint END AS step_id
    FROM public.oban_jobs AS j
    WHERE j.state = 'cancelled' AND j.worker = 'flowstone.executors.oban.job.StepWorker'
        AND j.cancelled_at >= pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
            - pg_catalog.make_interval(secs => %(within_seconds)s)
    UNION
    SELECT j.id, CASE WHEN j.args ->> 'step' ~ '^[0-9]{1,18}$' THEN (j.args ->> 'step')::bigint END
    FROM public.oban_jobs AS j
    WHERE j.id = ANY(%(signalled)s::bigint[]) AND j.state = 'executing'
        AND j.worker = 'flowstone.executors.oban.job.StepWorker'
)
SELECT s.id AS step_id, c.id AS job_id
FROM cancelled AS c
JOIN flowstone.steps AS s ON s.id = c.step_id AND s.finished_at IS NULL AND s.state <> 'cancelling'
WHERE s.job_id = c.id OR EXISTS (
    SELECT FROM flowstone.checkpoints AS p WHERE p.step_id = s.id AND p.state = 'pending' AND p.step_job_id = c.id
)
ORDER BY s.id;

-- name: cancelled_left
-- The same, found from the steps: whoever cancelled a job left no time in its row. Found by the sweep only.
-- Uses steps_one_active and oban_jobs_pkey.
SELECT s.id AS step_id, j.id AS job_id
FROM flowstone.steps AS s
JOIN public.oban_jobs AS j ON j.id = s.job_id AND j.state = 'cancelled'
WHERE s.finished_at IS NULL AND s.state <> 'cancelling'
ORDER BY s.id
LIMIT %(limit)s;

-- name: note_cancelled
-- Say of steps that were just cancelled who did that, in the step and in the audit log. Uses steps_pkey.
WITH noted AS (
    UPDATE flowstone.steps AS s
    SET reason = CASE WHEN s.finished_at IS NULL THEN s.reason ELSE 'its job was cancelled with Oban''s tools' END
    FROM unnest(%(steps)s::bigint[], %(jobs)s::bigint[]) AS c (step_id, job_id)
    WHERE s.id = c.step_id
    RETURNING s.id, s.asset, s.partition, s.run_id, s.state, c.job_id
)
INSERT INTO flowstone.audit (actor, action, subject, details)
SELECT 'oban', 'job.cancelled', 'step:' || n.id,
    pg_catalog.jsonb_build_object(
        'asset', n.asset, 'partition', n.partition, 'run', n.run_id, 'job', n.job_id, 'state', n.state
    )
FROM noted AS n
ORDER BY n.id;

-- name: note_refused
-- Record that jobs were not run again, and why. Uses audit_pkey.
INSERT INTO flowstone.audit (actor, action, subject, details)
SELECT 'oban', 'job.retry_refused', 'step:' || r.step_id,
    pg_catalog.jsonb_build_object('job', r.job_id, 'reason', r.note)
FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[], %(notes)s::text[]) AS r (job_id, step_id, note);

-- name: retried
-- Steps whose jobs were made available with Oban's tools although they are over, locked; with what decides whether
-- they can run again. Uses steps_pkey, runs_pkey and steps_one_active.
SELECT s.id AS step_id, s.job_id, s.state, s.run_id, s.is_item OR r.releases_step IS NOT NULL AS is_item,
    r.durable,
    (
        SELECT o.id FROM flowstone.steps AS o
        WHERE o.asset = s.asset AND o.partition = s.partition AND o.finished_at IS NULL
        LIMIT 1
    ) AS active
FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[]) AS g (job_id, step_id)
JOIN flowstone.steps AS s ON s.id = g.step_id AND s.job_id = g.job_id
JOIN flowstone.runs AS r ON r.id = s.run_id
WHERE s.finished_at IS NOT NULL
ORDER BY s.id
FOR NO KEY UPDATE OF s;

-- name: revive
-- Let steps that are over run once more, in place, and open their runs again for them. Runs that only waited for such a
-- step have counted it; they do not count it twice. Uses steps_pkey, runs_pkey and run_joins_pkey.
WITH revived AS (
    UPDATE flowstone.steps AS s
    SET state = 'pending',
        reason = 'its job was retried with Oban''s tools',
        max_attempts = greatest(s.max_attempts, s.attempt + 1),
        token = 0,
        placed_at = pg_catalog.clock_timestamp(),
        scheduled_at = NULL,
        finished_at = NULL
    FROM flowstone.steps AS o
    WHERE s.id = ANY(%(steps)s::bigint[]) AND o.id = s.id
    RETURNING s.id, s.run_id, s.asset, s.partition, s.job_id, o.state AS was
), counted AS (
    SELECT run_id, pg_catalog.count(*) AS steps,
        pg_catalog.count(*) FILTER (WHERE was = 'failed') AS failures,
        pg_catalog.count(*) FILTER (WHERE was = 'cancelled') AS cancellations
    FROM revived
    GROUP BY run_id
), opened AS (
    UPDATE flowstone.runs AS r
    SET open_steps = r.open_steps + c.steps,
        active_steps = r.active_steps + c.steps,
        failures = greatest(0, r.failures - c.failures),
        cancellations = greatest(0, r.cancellations - c.cancellations),
        counts = NULL,
        asset_counts = NULL,
        state = 'running',
        finished_at = NULL
    FROM counted AS c
    WHERE r.id = c.run_id
), left_alone AS (
    DELETE FROM flowstone.run_joins AS j USING revived AS v WHERE j.step_id = v.id
)
INSERT INTO flowstone.audit (actor, action, subject, details)
SELECT 'oban', 'job.retried', 'step:' || v.id,
    pg_catalog.jsonb_build_object('asset', v.asset, 'partition', v.partition, 'run', v.run_id, 'job', v.job_id)
FROM revived AS v
ORDER BY v.id;

-- name: reconcile
-- Put jobs that a worker took, and that started nothing, back to what their steps say: another program moved them, such as
-- another Oban's rescue or a person with Oban's tools. A job that no step names any more is closed.
-- Uses oban_jobs_pkey, steps_pkey and checkpoints_one_pending.
UPDATE public.oban_jobs AS j
SET state = t.state::public.oban_job_state,
    attempt = greatest(0, least(coalesce(t.attempt, j.attempt - 1), j.max_attempts)),
    cancelled_at = CASE WHEN t.state = 'cancelled' THEN t.at END,
    discarded_at = CASE WHEN t.state = 'discarded' THEN t.at END,
    completed_at = CASE WHEN t.state = 'completed' THEN t.at END,
    meta = CASE WHEN t.note IS NULL THEN j.meta
        ELSE coalesce(j.meta, '{}') || pg_catalog.jsonb_build_object('flowstone', t.note) END
FROM (
    SELECT g.job_id, g.note, s.attempt,
        pg_catalog.timezone('UTC', coalesce(s.finished_at, pg_catalog.clock_timestamp())) AS at,
        CASE
            WHEN s.state = 'awaiting_approval' AND EXISTS (
                SELECT FROM flowstone.checkpoints AS p
                WHERE p.step_id = s.id AND p.state = 'pending' AND p.step_job_id = g.job_id
            ) THEN 'suspended'
            WHEN s.job_id IS DISTINCT FROM g.job_id THEN 'cancelled'
            WHEN s.state IN ('running', 'cancelling') THEN 'executing'
            WHEN s.state = 'waiting' THEN 'suspended'
            WHEN s.state IN ('failed', 'upstream_failed') THEN 'discarded'
            WHEN s.state = 'cancelled' THEN 'cancelled'
            WHEN s.finished_at IS NOT NULL THEN 'completed'
            ELSE 'available'
        END AS state
    FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[], %(notes)s::text[]) AS g (job_id, step_id, note)
    LEFT JOIN flowstone.steps AS s ON s.id = g.step_id
) AS t
WHERE j.id = t.job_id AND j.state = 'executing';
