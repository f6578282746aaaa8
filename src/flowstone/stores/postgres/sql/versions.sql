-- Versions of targets: listed, which one was when, restored, erased.

-- name: page
-- Versions of a target, newest first; before is the step id of the last one of the page before. Uses steps_of_target,
-- current_outputs_pkey, runs_pkey.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.run_id, s.attempt, s.created_at, s.started_at,
    s.finished_at, s.code_version, s.output AS stored, s.invalidated_at, s.erased_at, c.committed_at AS since, r.kind, r.requested_by
FROM flowstone.steps AS s
LEFT JOIN flowstone.current_outputs AS c ON c.asset = s.asset AND c.partition = s.partition AND c.step_id = s.id
LEFT JOIN flowstone.runs AS r ON r.id = s.run_id
WHERE s.asset = %(asset)s AND s.partition = %(partition)s AND s.state = 'completed' AND NOT s.is_item
    AND (%(before)s::bigint IS NULL OR s.id < %(before)s)
ORDER BY s.id DESC
LIMIT %(limit)s;

-- name: newest
-- The newest versions of an asset with few partitions, newest first. Uses steps_of_target, current_outputs_pkey, runs_pkey.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.run_id, s.attempt, s.created_at, s.started_at,
    s.finished_at, s.code_version, s.output AS stored, s.invalidated_at, s.erased_at, c.committed_at AS since, r.kind,
    r.requested_by
FROM unnest(%(partitions)s::text[]) AS t (partition)
CROSS JOIN LATERAL (
    SELECT o.*
    FROM flowstone.steps AS o
    WHERE o.asset = %(asset)s AND o.partition = t.partition AND o.state = 'completed' AND NOT o.is_item
    ORDER BY o.id DESC
    LIMIT %(limit)s
) AS s
LEFT JOIN flowstone.current_outputs AS c ON c.asset = s.asset AND c.partition = s.partition AND c.step_id = s.id
LEFT JOIN flowstone.runs AS r ON r.id = s.run_id
ORDER BY s.id DESC
LIMIT %(limit)s;

-- name: newest_in_use
-- Of an asset with many partitions: the versions in use, those first that are in use since the latest time.
-- Uses current_outputs_pkey, steps_pkey, runs_pkey.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.run_id, s.attempt, s.created_at, s.started_at,
    s.finished_at, s.code_version, s.output AS stored, s.invalidated_at, s.erased_at, c.committed_at AS since, r.kind,
    r.requested_by
FROM (
    SELECT o.step_id, o.committed_at
    FROM flowstone.current_outputs AS o
    WHERE o.asset = %(asset)s
    ORDER BY o.committed_at DESC, o.step_id DESC
    LIMIT %(limit)s
) AS c
JOIN flowstone.steps AS s ON s.id = c.step_id
LEFT JOIN flowstone.runs AS r ON r.id = s.run_id
ORDER BY c.committed_at DESC, c.step_id DESC;

-- name: count
-- How many versions of a target there are. Uses steps_of_target.
SELECT pg_catalog.count(*)
FROM (
    SELECT FROM flowstone.steps AS s
    WHERE s.asset = %(asset)s AND s.partition = %(partition)s AND s.state = 'completed' AND NOT s.is_item
    LIMIT %(limit)s
) AS counted;

-- name: get
-- Versions by their step ids; a step that reused one stands for it. Uses steps_pkey, current_outputs_pkey, runs_pkey.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.run_id, s.attempt, s.created_at, s.started_at,
    s.finished_at, s.code_version, s.output AS stored, s.invalidated_at, s.erased_at, c.committed_at AS since, r.kind, r.requested_by
FROM flowstone.steps AS s
LEFT JOIN flowstone.current_outputs AS c ON c.asset = s.asset AND c.partition = s.partition AND c.step_id = s.id
LEFT JOIN flowstone.runs AS r ON r.id = s.run_id
WHERE s.id = ANY(%(steps)s::bigint[]) AND s.state = 'completed' AND NOT s.is_item
ORDER BY s.id;

-- name: changes
-- What changed which version of targets is in use, besides commits, oldest first. Uses output_changes_of_target.
SELECT c.id, c.asset, c.partition AS partition_key, c.kind, c.step_id, c.before, c.before_since, c.at, c.actor, c.reason
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
JOIN flowstone.output_changes AS c ON c.asset = t.asset AND c.partition = t.partition
ORDER BY c.at, c.id;

-- name: commits
-- When the versions of some targets were committed, as far as they are recorded, newest last. Uses steps_of_target.
SELECT s.asset, s.partition AS partition_key, s.id AS step_id, s.finished_at AS at
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
JOIN flowstone.steps AS s ON s.asset = t.asset AND s.partition = t.partition
WHERE s.state = 'completed' AND NOT s.is_item AND s.finished_at IS NOT NULL
ORDER BY s.id;

-- name: pointers
-- The versions in use of some targets, and since when. Uses current_outputs_pkey.
SELECT c.asset, c.partition AS partition_key, c.step_id, c.committed_at AS at
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
JOIN flowstone.current_outputs AS c ON c.asset = t.asset AND c.partition = t.partition;

-- name: lock_pointers
-- The same, locked in the order in which commits lock them; who commits one of these targets waits. Uses
-- current_outputs_pkey.
SELECT c.asset, c.partition AS partition_key, c.step_id, c.committed_at AS at
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
JOIN flowstone.current_outputs AS c ON c.asset = t.asset AND c.partition = t.partition
ORDER BY c.asset, c.partition
FOR UPDATE OF c;

-- name: lock_versions
-- Versions that are to be in use, locked against pruning; those that cannot be are left out. Uses steps_pkey.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.erased_at
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND s.state = 'completed' AND NOT s.is_item
ORDER BY s.id
FOR KEY SHARE OF s;

-- name: active
-- Which of some targets are being computed, or wait for that in a range; some of them. Uses steps_one_active, ranges_open.
SELECT s.asset, s.partition AS partition_key, s.run_id, s.id AS step_id, s.state
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
JOIN flowstone.steps AS s ON s.asset = t.asset AND s.partition = t.partition AND s.finished_at IS NULL
UNION ALL
SELECT g.asset, t.partition, g.run_id, NULL::bigint, 'pending'
FROM flowstone.ranges AS g
JOIN unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    ON t.asset = g.asset AND t.partition = ANY(g.partitions[g.begun + 1 :])
WHERE g.is_open
LIMIT 20;

-- name: point
-- Put versions in use, one for each target, or none, and keep what was before. The caller has locked versions and
-- pointers. Uses current_outputs_pkey, steps_pkey.
WITH clock AS MATERIALIZED (
    SELECT pg_catalog.clock_timestamp() AS at
), changed AS (
    SELECT t.asset, t.partition, t.step_id, t.before, t.before_since, clock.at
    FROM unnest(
        %(assets)s::text[], %(partitions)s::text[], %(steps)s::bigint[], %(before)s::bigint[],
        %(before_since)s::timestamptz[]
    ) AS t (asset, partition, step_id, before, before_since)
    CROSS JOIN clock
), pointed AS (
    INSERT INTO flowstone.current_outputs (asset, partition, step_id, committed_at)
    SELECT c.asset, c.partition, c.step_id, c.at FROM changed AS c WHERE c.step_id IS NOT NULL
    ORDER BY c.asset, c.partition
    ON CONFLICT (asset, partition) DO UPDATE
    SET step_id = excluded.step_id, committed_at = excluded.committed_at
), gone AS (
    DELETE FROM flowstone.current_outputs AS o
    USING changed AS c
    WHERE c.step_id IS NULL AND o.asset = c.asset AND o.partition = c.partition
), out_of_use AS (
    UPDATE flowstone.steps AS s
    SET invalidated_at = CASE WHEN s.id = c.step_id THEN NULL ELSE c.at END
    FROM changed AS c
    WHERE s.id = c.step_id AND s.invalidated_at IS NOT NULL OR (c.step_id IS NULL AND s.id = c.before)
)
INSERT INTO flowstone.output_changes (asset, partition, kind, step_id, before, before_since, at, actor, reason)
SELECT c.asset, c.partition, CASE WHEN c.step_id IS NULL THEN 'invalidated' ELSE 'restored' END, c.step_id, c.before,
    c.before_since, c.at, %(actor)s, %(reason)s
FROM changed AS c
ORDER BY c.asset, c.partition;

-- name: of_run
-- What a run has for a target: its own step, or the one of another run that it joined, which is not looked for when there
-- is an own one. Uses steps_of_run, steps_of_target, see `catalog/resolve`, and run_joins_of_run.
(
    SELECT s.id AS step_id, s.state, s.output_step AS version
    FROM flowstone.steps AS s
    WHERE s.asset = %(asset)s AND s.partition = %(partition)s AND s.run_id = %(run_id)s
        AND s.id >= (
            SELECT CASE WHEN f.run_id = %(run_id)s THEN f.id END FROM flowstone.steps AS f
            WHERE f.run_id >= %(run_id)s ORDER BY f.run_id, f.id LIMIT 1
        )
    ORDER BY s.id DESC
    LIMIT 1
)
UNION ALL
(
    SELECT o.id, o.state, o.output_step
    FROM flowstone.run_joins AS j
    CROSS JOIN LATERAL (
        SELECT s.id, s.state, s.output_step FROM flowstone.steps AS s
        WHERE s.id = j.step_id AND s.asset = %(asset)s AND s.partition = %(partition)s
        LIMIT 1
    ) AS o
    WHERE j.run_id = %(run_id)s
    ORDER BY o.id DESC
    LIMIT 1
)
LIMIT 1;

-- name: published
-- Versions that a run committed and that are in use, in the order of their steps. Uses steps_of_run,
-- current_outputs_pkey.
SELECT s.asset, s.partition AS partition_key, s.id AS step_id
FROM flowstone.steps AS s
JOIN flowstone.current_outputs AS c ON c.asset = s.asset AND c.partition = s.partition AND c.step_id = s.id
WHERE s.run_id = %(run_id)s AND s.id > %(after)s AND s.state = 'completed' AND NOT s.is_item
ORDER BY s.id
LIMIT %(limit)s;

-- name: partitions
-- The partitions of which anything is recorded for an asset, each once, after a partition: found by leaps through the
-- index, so that a target with many steps costs as much as one with few. Uses steps_of_target.
WITH RECURSIVE found AS (
    (
        SELECT s.partition FROM flowstone.steps AS s
        WHERE s.asset = %(asset)s AND s.partition > %(after)s
        ORDER BY s.partition
        LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT s.partition FROM flowstone.steps AS s
        WHERE s.asset = %(asset)s AND s.partition > f.partition
        ORDER BY s.partition
        LIMIT 1
    )
    FROM found AS f
    WHERE f.partition IS NOT NULL
)
SELECT partition FROM found WHERE partition IS NOT NULL LIMIT %(limit)s;

-- name: erase_counts
-- What is recorded of targets, with the items of their steps. Uses steps_of_target, scatters_step_id_key, steps_of_run,
-- attempts_pkey, check_results_of_step, checkpoints_of_step, scatter_items_pkey, logs_pkey.
WITH own AS MATERIALIZED (
    SELECT s.id, s.output_step, s.output, s.erased_at
    FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    JOIN flowstone.steps AS s ON s.asset = t.asset AND s.partition = t.partition
), items AS MATERIALIZED (
    SELECT s.id, s.output_step, s.output, s.erased_at
    FROM own
    JOIN flowstone.scatters AS c ON c.step_id = own.id
    JOIN flowstone.steps AS s ON s.run_id = c.run_id
    WHERE NOT EXISTS (SELECT FROM own AS o WHERE o.id = s.id)
), everything AS MATERIALIZED (
    SELECT * FROM own UNION ALL SELECT * FROM items
)
SELECT
    (SELECT pg_catalog.count(*) FROM everything) AS steps,
    (SELECT pg_catalog.count(*) FROM everything AS e WHERE e.output_step = e.id AND e.output IS NOT NULL) AS "values",
    (
        SELECT coalesce(pg_catalog.sum((e.output ->> 'size_bytes')::bigint), 0)::bigint
        FROM everything AS e
        WHERE e.output_step = e.id
    ) AS size_bytes,
    (
        SELECT pg_catalog.count(*) FROM flowstone.attempts AS a
        WHERE a.step_id IN (SELECT e.id FROM everything AS e WHERE e.erased_at IS NULL)
    ) AS attempts,
    (
        SELECT pg_catalog.count(*) FROM flowstone.check_results AS a
        WHERE a.step_id IN (SELECT e.id FROM everything AS e WHERE e.erased_at IS NULL)
    ) AS checks,
    (
        SELECT pg_catalog.count(*) FROM flowstone.checkpoints AS a
        WHERE a.step_id IN (SELECT e.id FROM everything AS e WHERE e.erased_at IS NULL)
    ) AS approvals,
    (SELECT pg_catalog.count(*) FROM items AS i WHERE i.erased_at IS NULL) AS items,
    (
        SELECT coalesce(pg_catalog.sum(l.lines), 0)::bigint FROM flowstone.logs AS l
        WHERE l.step_id IN (SELECT e.id FROM everything AS e WHERE e.erased_at IS NULL)
    ) AS logs,
    (SELECT pg_catalog.count(*) FROM everything AS e WHERE e.erased_at IS NOT NULL) AS erased;

-- name: erase
-- Take what people and code wrote about targets out of every table, and their versions out of use. Steps, attempts and
-- results stay as the fact that they were; where values lie is kept until they are deleted (versions/forget_values). A
-- run of which no step is left keeps neither its config nor its metadata. Uses steps_of_target, scatters_step_id_key,
-- steps_of_run, attempts_pkey, check_results_of_step, checkpoints_of_step, scatter_items_pkey, logs_pkey,
-- audit_of_subject, current_outputs_pkey, runs_pkey.
WITH clock AS MATERIALIZED (
    SELECT pg_catalog.clock_timestamp() AS at
), own AS MATERIALIZED (
    SELECT s.id, s.run_id
    FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    JOIN flowstone.steps AS s ON s.asset = t.asset AND s.partition = t.partition
), everything AS MATERIALIZED (
    SELECT own.id, own.run_id FROM own
    UNION
    SELECT s.id, s.run_id
    FROM own
    JOIN flowstone.scatters AS c ON c.step_id = own.id
    JOIN flowstone.steps AS s ON s.run_id = c.run_id
), steps AS (
    UPDATE flowstone.steps AS s
    SET erased_at = coalesce(s.erased_at, clock.at),
        error = CASE WHEN s.error IS NOT NULL THEN 'erased' END,
        reason = CASE WHEN s.reason IS NOT NULL THEN 'erased' END,
        error_data = NULL,
        output = CASE WHEN s.output IS NOT NULL THEN pg_catalog.jsonb_build_object(
            'io', s.output -> 'io', 'location', s.output -> 'location', 'size_bytes', s.output -> 'size_bytes'
        ) END
    FROM everything AS e
    CROSS JOIN clock
    WHERE s.id = e.id AND s.erased_at IS NULL
    RETURNING s.id
), attempts AS (
    UPDATE flowstone.attempts AS a SET error = 'erased'
    FROM steps AS e
    WHERE a.step_id = e.id AND a.error IS NOT NULL
), logs AS (
    DELETE FROM flowstone.logs AS l USING steps AS e WHERE l.step_id = e.id
), checks AS (
    UPDATE flowstone.check_results AS r
    SET description = '', metadata = '{}', error = CASE WHEN r.error IS NOT NULL THEN 'erased' END
    FROM steps AS e
    WHERE r.step_id = e.id
), requested AS (
    UPDATE flowstone.checkpoints AS p SET message = 'erased', data = 'null', resume = 'null', comment = NULL
    FROM steps AS e
    WHERE p.step_id = e.id
    RETURNING p.id
), quoted AS (
    UPDATE flowstone.audit AS l SET details = '{"erased": true}'
    FROM requested AS r
    WHERE l.subject = 'approval:' || r.id AND l.details <> '{}'
), items AS (
    UPDATE flowstone.scatter_items AS i SET item = 'null'
    FROM steps AS e
    WHERE i.step_id = e.id
), runs AS (
    UPDATE flowstone.runs AS r
    SET details = (r.details::jsonb - '{config,metadata,hooks_config,secrets}'::text[])::json
    FROM (SELECT DISTINCT run_id FROM everything) AS e
    WHERE r.id = e.run_id AND r.details IS NOT NULL AND NOT EXISTS (
        SELECT FROM flowstone.steps AS o
        WHERE o.run_id = r.id AND o.erased_at IS NULL AND o.id NOT IN (SELECT id FROM everything)
    )
), pointers AS (
    DELETE FROM flowstone.current_outputs AS c
    USING unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    WHERE c.asset = t.asset AND c.partition = t.partition
    RETURNING c.asset, c.partition, c.step_id, c.committed_at
), noted AS (
    INSERT INTO flowstone.output_changes (asset, partition, kind, before, before_since, at, actor, reason)
    SELECT t.asset, t.partition, 'erased', p.step_id, p.committed_at, clock.at, %(actor)s, %(reason)s
    FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    CROSS JOIN clock
    LEFT JOIN pointers AS p ON p.asset = t.asset AND p.partition = t.partition
    WHERE EXISTS (SELECT FROM steps)
    ORDER BY t.asset, t.partition
)
SELECT id FROM steps ORDER BY id;

-- name: erase_jobs
-- What the queue kept about steps: the errors of their jobs. Jobs are pruned soon after their end anyway.
-- Uses oban_jobs_pkey, steps_pkey.
UPDATE public.oban_jobs AS j
SET errors = '{}', meta = coalesce(j.meta, '{}') - 'flowstone'
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND j.id = s.job_id;

-- name: erased_values
-- Steps of erased targets whose values are not known to be deleted, a page at a time. Uses steps_of_target,
-- scatters_step_id_key, steps_of_run.
SELECT s.id AS step_id, s.asset, s.partition AS partition_key, s.attempt + s.snoozes AS attempts, s.output AS stored
FROM (
    SELECT o.id
    FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    JOIN flowstone.steps AS o ON o.asset = t.asset AND o.partition = t.partition
    UNION
    SELECT i.id
    FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    JOIN flowstone.steps AS o ON o.asset = t.asset AND o.partition = t.partition
    JOIN flowstone.scatters AS c ON c.step_id = o.id
    JOIN flowstone.steps AS i ON i.run_id = c.run_id
) AS e
JOIN flowstone.steps AS s ON s.id = e.id
WHERE s.erased_at IS NOT NULL AND s.id > %(after)s
ORDER BY s.id
LIMIT %(limit)s;

-- name: forget_values
-- The values of erased steps are deleted: where they lay is forgotten as well. Uses steps_pkey.
UPDATE flowstone.steps SET output = NULL, output_step = NULL
WHERE id = ANY(%(steps)s::bigint[]) AND erased_at IS NOT NULL AND output IS NOT NULL;
