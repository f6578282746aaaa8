-- What the catalog answers: runs, steps, attempts, versions, their readers, the status of targets.

-- name: resolve
-- The version to read for each [run, asset, partition] of a JSON array (see `current`): the run's own result wins, else
-- the current one. A small value comes along. Each LIMIT keeps the planner at one look into an index per target: for a
-- table of some thousand rows it would read all of it, again for each group of steps. What a run has itself is looked for
-- among the versions of the target since the first step of the run, not in all of them; that step is asked for in an order
-- that only steps_of_run has, or it would be looked for in the order of all steps.
-- Uses steps_of_run, steps_of_target, current_outputs_pkey, steps_pkey, output_payloads_pkey.
SELECT t.position, s.id AS step_id, s.output, p.payload, s.started_at, own.output_step IS NOT NULL AS own
FROM (
    SELECT r.target ->> 0 AS run_id, r.target ->> 1 AS asset, r.target ->> 2 AS partition, r.position
    FROM pg_catalog.jsonb_array_elements(%(targets)s::jsonb) WITH ORDINALITY AS r (target, position)
) AS t
LEFT JOIN LATERAL (
    SELECT o.output_step
    FROM flowstone.steps AS o
    WHERE o.asset = t.asset AND o.partition = t.partition AND o.run_id = t.run_id AND o.output_step IS NOT NULL
        AND o.id >= (
            SELECT CASE WHEN f.run_id = t.run_id THEN f.id END FROM flowstone.steps AS f
            WHERE f.run_id >= t.run_id ORDER BY f.run_id, f.id LIMIT 1
        )
    LIMIT 1
) AS own ON true
LEFT JOIN LATERAL (
    SELECT c.step_id FROM flowstone.current_outputs AS c WHERE c.asset = t.asset AND c.partition = t.partition LIMIT 1
) AS c ON own.output_step IS NULL
CROSS JOIN LATERAL (
    SELECT o.id, o.output, o.started_at
    FROM flowstone.steps AS o
    WHERE o.id = coalesce(own.output_step, c.step_id) AND o.erased_at IS NULL
    LIMIT 1
) AS s
LEFT JOIN LATERAL (
    SELECT v.payload
    FROM flowstone.output_payloads AS v
    WHERE v.version = pg_catalog.substr(s.output ->> 'location', 8)
    LIMIT 1
) AS p ON s.output ->> 'location' LIKE 'inline:%%';

-- name: kept
-- Which of these versions are still what they were when they were committed: they are there, and not erased. The inner
-- SELECT hides how many they are: else the statement is planned each time, which takes ten times as long as running it.
-- Uses steps_pkey.
SELECT id FROM flowstone.steps WHERE id = ANY(ARRAY(SELECT unnest(%(steps)s::bigint[]))) AND erased_at IS NULL;

-- name: current
-- Committed steps of some targets, given as [[asset, partition], ...]: JSON is several times faster to write and to
-- read than two arrays of text. Uses current_outputs_pkey.
SELECT t.position, c.step_id
FROM pg_catalog.jsonb_array_elements(%(targets)s::jsonb) WITH ORDINALITY AS t (target, position)
JOIN flowstone.current_outputs AS c ON c.asset = t.target ->> 0 AND c.partition = t.target ->> 1;

-- part: record
-- Steps, as a `StepRecord` has them.
SELECT s.id, s.run_id, s.asset, s.partition AS partition_key, s.state, s.attempt, s.max_attempts, s.priority, s.queue,
    r.executor, s.created_at, s.scheduled_at, s.started_at, s.finished_at, s.worker, s.error, s.error_type, s.reason,
    s.output_step, s.output AS stored, s.code_version, s.waiting_on, s.forced, s.invalidated_at, s.error_data, s.erased_at
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id

-- name: history
-- Steps of an asset, or of one partition, newest first. Uses steps_of_target.
-- here: catalog/record
WHERE s.asset = %(asset)s
    AND (%(partition)s::text IS NULL OR s.partition = %(partition)s)
    AND (%(state)s::text IS NULL OR s.state = %(state)s)
ORDER BY s.id DESC
LIMIT %(limit)s;

-- name: inputs
-- What steps read. Uses lineage_pkey and steps_pkey.
SELECT l.step_id, l.parameter, u.asset, u.partition AS partition_key, l.upstream_step_id AS upstream
FROM flowstone.lineage AS l
JOIN flowstone.steps AS u ON u.id = l.upstream_step_id
WHERE l.step_id = ANY(%(steps)s::bigint[])
ORDER BY l.step_id, l.parameter, l.upstream_step_id;

-- name: readers
-- Which steps read some steps. Uses lineage_readers.
SELECT upstream_step_id AS upstream, step_id AS reader
FROM flowstone.lineage
WHERE upstream_step_id = ANY(%(steps)s::bigint[])
ORDER BY upstream_step_id, step_id;

-- name: run_details
-- What a run is about, secrets included. Uses runs_pkey.
SELECT details FROM flowstone.runs WHERE id = %(run_id)s;

-- name: started
-- When the step in use of some targets was started that computed it, given as [[asset, partition], ...].
-- Uses current_outputs_pkey, steps_pkey.
SELECT t.position, s.started_at
FROM pg_catalog.jsonb_array_elements(%(targets)s::jsonb) WITH ORDINALITY AS t (target, position)
JOIN flowstone.current_outputs AS c ON c.asset = t.target ->> 0 AND c.partition = t.target ->> 1
JOIN flowstone.steps AS s ON s.id = c.step_id
WHERE s.started_at IS NOT NULL;

-- name: unfinished
-- Which of these steps and of this run are not over. Uses steps_pkey and runs_pkey.
SELECT
    EXISTS (
        SELECT FROM flowstone.steps
        WHERE id = ANY(%(steps)s::bigint[]) AND state IN (
            'waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling'
        )
    ) OR EXISTS (SELECT FROM flowstone.runs WHERE id = %(run_id)s AND state = 'running');

-- name: step
-- One step. Uses steps_pkey.
-- here: catalog/record
WHERE s.id = %(step_id)s;

-- name: steps
-- Steps of a run, its own and those it joined, in the order of planning. Two questions, as one with OR is answered from no
-- index: it would read all steps of the past. Uses steps_of_run, run_joins_of_run and steps_pkey.
SELECT *
FROM (
    (
        -- here: catalog/record
        WHERE s.run_id = %(run_id)s AND (%(state)s::text IS NULL OR s.state = %(state)s)
        ORDER BY s.id
        LIMIT %(limit)s
    )
    UNION ALL
    (
        SELECT joined.*
        FROM flowstone.run_joins AS j
        CROSS JOIN LATERAL (
            -- here: catalog/record
            WHERE s.id = j.step_id AND s.run_id <> %(run_id)s AND (%(state)s::text IS NULL OR s.state = %(state)s)
            LIMIT 1
        ) AS joined
        WHERE j.run_id = %(run_id)s
    )
) AS found
ORDER BY id
LIMIT %(limit)s;

-- name: skipped
-- Which of some targets, given as [[run, asset, partition], ...], were skipped: by the run itself, else the latest time
-- that they had a result or were skipped. Uses steps_of_run and steps_of_target, as `resolve` does.
SELECT t.position
FROM pg_catalog.jsonb_array_elements(%(requested)s::jsonb) WITH ORDINALITY AS t (target, position)
LEFT JOIN LATERAL (
    SELECT o.state
    FROM flowstone.steps AS o
    WHERE o.asset = t.target ->> 1 AND o.partition = t.target ->> 2 AND o.run_id = t.target ->> 0
        AND o.id >= (
            SELECT CASE WHEN f.run_id = t.target ->> 0 THEN f.id END FROM flowstone.steps AS f
            WHERE f.run_id >= t.target ->> 0 ORDER BY f.run_id, f.id LIMIT 1
        )
        AND o.state IN ('completed', 'reused', 'skipped')
    LIMIT 1
) AS own ON true
LEFT JOIN LATERAL (
    SELECT n.state
    FROM flowstone.steps AS n
    WHERE n.asset = t.target ->> 1 AND n.partition = t.target ->> 2 AND n.state IN ('completed', 'skipped')
    ORDER BY n.id DESC
    LIMIT 1
) AS newest ON own.state IS NULL
WHERE coalesce(own.state, newest.state) = 'skipped';

-- name: attempts
-- Attempts of a step that are over, in order. Uses attempts_pkey.
SELECT attempt, state, started_at, finished_at, worker, error, error_type, retry_at, read
FROM flowstone.attempts
WHERE step_id = %(step_id)s
ORDER BY attempt, token;

-- name: config_hashes
-- How the runs of some steps were to compute them. Uses steps_pkey.
SELECT id, config_hash FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);

-- name: status
-- How targets stand, given as [[asset, partition], ...]: the version in use, who restored it in place of which code, and
-- the newest step that was not served by an earlier version; of two steps only the newer one can be active.
-- Uses current_outputs_pkey, steps_pkey, steps_of_target, output_changes_of_target.
SELECT t.position,
    c.step_id AS committed_step, c.committed_at, s.code_version AS committed_code,
    s.output ->> 'content_hash' AS content_hash, s.started_at AS committed_started_at,
    w.at AS restored_at, w.actor AS restored_by, b.code_version AS replaced_code,
    n.id AS newest_step, n.state AS newest_state, n.code_version AS newest_code, n.placed_at, n.started_at,
    n.finished_at, n.run_id
FROM pg_catalog.jsonb_array_elements(%(targets)s::jsonb) WITH ORDINALITY AS t (target, position)
LEFT JOIN flowstone.current_outputs AS c ON c.asset = t.target ->> 0 AND c.partition = t.target ->> 1
LEFT JOIN flowstone.steps AS s ON s.id = c.step_id
LEFT JOIN LATERAL (
    SELECT h.at, h.actor, h.before
    FROM flowstone.output_changes AS h
    WHERE h.asset = c.asset AND h.partition = c.partition AND h.kind = 'restored' AND h.at = c.committed_at
    LIMIT 1
) AS w ON true
LEFT JOIN flowstone.steps AS b ON b.id = w.before
LEFT JOIN LATERAL (
    SELECT o.id, o.state, o.code_version, o.placed_at, o.started_at, o.finished_at, o.run_id
    FROM flowstone.steps AS o
    WHERE o.asset = t.target ->> 0 AND o.partition = t.target ->> 1 AND o.state <> 'reused'
    ORDER BY o.id DESC
    LIMIT 1
) AS n ON true
WHERE c.step_id IS NOT NULL OR n.id IS NOT NULL;

-- name: reads
-- What steps had read, committed or not, with the hashes of the data. Uses lineage_pkey, tried_inputs_pkey, steps_pkey.
SELECT r.step_id, u.asset, u.partition AS partition_key, r.upstream_step_id AS upstream,
    u.output ->> 'content_hash' AS content_hash
FROM (
    SELECT l.step_id, l.upstream_step_id FROM flowstone.lineage AS l WHERE l.step_id = ANY(%(steps)s::bigint[])
    UNION ALL
    SELECT i.step_id, i.upstream_step_id FROM flowstone.tried_inputs AS i WHERE i.step_id = ANY(%(steps)s::bigint[])
) AS r
JOIN flowstone.steps AS u ON u.id = r.upstream_step_id;

-- name: active
-- How many steps of each asset are not over. Uses steps_one_active.
SELECT s.asset, pg_catalog.count(*) AS active
FROM flowstone.steps AS s
WHERE s.finished_at IS NULL AND s.asset = ANY(%(assets)s::text[])
GROUP BY s.asset;
