-- Begin the next partitions of a run: make steps of them whose first attempts run, or which reuse what is committed.
-- A partition that is under way elsewhere comes back without a step. The job id is negative because the step has no
-- row on Oban's queue; it gets one if it has to be placed again. Uses ranges_open, current_outputs_pkey.
WITH chunk AS (
    SELECT g.*, least(%(demand)s, g.total - g.begun) AS number
    FROM flowstone.ranges AS g
    WHERE g.run_id = %(run_id)s AND g.queue = %(queue)s AND g.is_open
    ORDER BY g.id
    LIMIT 1
    FOR NO KEY UPDATE SKIP LOCKED
), moved AS (
    UPDATE flowstone.ranges AS g
    SET begun = g.begun + c.number, is_open = g.begun + c.number < g.total
    FROM chunk AS c
    WHERE g.id = c.id
), taken AS (
    SELECT k.partition, pg_catalog.nextval('flowstone.step_ids') AS id
    FROM chunk AS c
    CROSS JOIN LATERAL unnest(c.partitions[c.begun + 1 : c.begun + c.number]) AS k (partition)
), made AS (
    INSERT INTO flowstone.steps (
        id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token, forced, job_id, worker,
        output_step, output, code_version, created_at, started_at, finished_at,
        config_hash
    )
    SELECT t.id, c.run_id, c.asset, t.partition, CASE WHEN v.step_id IS NULL THEN 'running' ELSE 'reused' END,
        c.priority, c.queue, (v.step_id IS NULL)::integer, c.max_attempts,
        CASE WHEN v.step_id IS NULL THEN pg_catalog.nextval('flowstone.tokens') ELSE 0 END, c.forced,
        CASE WHEN v.step_id IS NULL THEN - t.id END, CASE WHEN v.step_id IS NULL THEN %(worker_id)s END,
        v.step_id, v.output, c.code_version, r.created_at,
        CASE WHEN v.step_id IS NULL THEN pg_catalog.clock_timestamp() END,
        CASE WHEN v.step_id IS NOT NULL THEN pg_catalog.clock_timestamp() END,
        c.config_hash
    FROM taken AS t
    CROSS JOIN chunk AS c
    JOIN flowstone.runs AS r ON r.id = c.run_id
    LEFT JOIN flowstone.current_outputs AS o
        ON NOT c.forced AND o.asset = c.asset AND o.partition = t.partition
    LEFT JOIN flowstone.steps AS u ON u.id = o.step_id
    -- what was made with another config does not serve when the request names one
    LEFT JOIN LATERAL (SELECT o.step_id, u.output) AS v
        ON NOT c.exact OR u.config_hash IS NOT DISTINCT FROM c.config_hash
    ORDER BY t.partition
    ON CONFLICT (asset, partition) WHERE finished_at IS NULL DO NOTHING
    RETURNING id, partition, state, token, started_at
)
SELECT m.id, m.state, m.token, m.started_at, t.partition, c.asset, c.max_attempts, c.forced, c.priority,
    c.config_hash, c.exact
FROM taken AS t
CROSS JOIN chunk AS c
LEFT JOIN made AS m ON m.id = t.id;
