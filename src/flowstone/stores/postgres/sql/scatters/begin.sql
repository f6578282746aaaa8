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
SELECT step.priority, step.queue, step.limits, step.durable, step.partition, previous.run_id AS previous
FROM step
LEFT JOIN previous ON true;
