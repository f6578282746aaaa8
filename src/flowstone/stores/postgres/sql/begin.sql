-- Begin the next partitions of a run: make steps of them whose first attempts run, or which reuse what is committed.
-- When the run asked for that, one that was placed lately and is over gives the step its end.
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
), placed AS (
    SELECT t.id, t.partition, n.id AS recent, n.state AS ended, n.error, n.error_type, v.step_id AS reuse, v.output
    FROM taken AS t
    CROSS JOIN chunk AS c
    LEFT JOIN LATERAL (
        SELECT s.id, s.state, s.error, s.error_type, s.output_step
        FROM flowstone.steps AS s
        WHERE c.unique_seconds IS NOT NULL AND s.asset = c.asset AND s.partition = t.partition
            AND s.run_id <> c.run_id AND s.finished_at IS NOT NULL
            AND s.placed_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => c.unique_seconds)
            AND (NOT c.same_config OR s.config_hash IS NOT DISTINCT FROM c.config_hash)
        ORDER BY s.id DESC
        LIMIT 1
    ) AS n ON true
    LEFT JOIN flowstone.current_outputs AS o
        ON n.id IS NULL AND NOT c.forced AND o.asset = c.asset AND o.partition = t.partition
    LEFT JOIN flowstone.steps AS u
        ON u.id = coalesce(CASE WHEN n.state IN ('completed', 'reused') THEN n.output_step END, o.step_id)
    -- what was made with another config does not serve when the request names one
    LEFT JOIN LATERAL (SELECT u.id AS step_id, u.output) AS v
        ON NOT c.same_config OR u.config_hash IS NOT DISTINCT FROM c.config_hash
), made AS (
    INSERT INTO flowstone.steps (
        id, run_id, asset, partition, state, priority, queue, attempt, max_attempts, token, forced, job_id, worker,
        output_step, output, code_version, created_at, tags, error, error_type, reason, started_at, finished_at,
        config_hash
    )
    SELECT p.id, c.run_id, c.asset, p.partition, a.state, c.priority, c.queue, a.starts::integer, c.max_attempts,
        CASE WHEN a.starts THEN pg_catalog.nextval('flowstone.tokens') ELSE 0 END, c.forced,
        CASE WHEN a.starts THEN - p.id END, CASE WHEN a.starts THEN %(worker_id)s END,
        p.reuse, p.output, c.code_version, r.created_at, c.tags, p.error, p.error_type,
        CASE WHEN a.state NOT IN ('running', 'reused') THEN 'step ' || p.recent || ' was placed so lately that it answers' END,
        CASE WHEN a.starts THEN pg_catalog.clock_timestamp() END,
        CASE WHEN NOT a.starts THEN pg_catalog.clock_timestamp() END,
        c.config_hash
    FROM placed AS p
    CROSS JOIN chunk AS c
    CROSS JOIN LATERAL (
        SELECT p.reuse IS NULL AND coalesce(p.ended IN ('completed', 'reused'), true) AS starts
    ) AS b
    CROSS JOIN LATERAL (
        SELECT b.starts,
            CASE WHEN b.starts THEN 'running' WHEN p.reuse IS NOT NULL THEN 'reused' ELSE p.ended END AS state
    ) AS a
    JOIN flowstone.runs AS r ON r.id = c.run_id
    ORDER BY p.partition
    ON CONFLICT (asset, partition) WHERE finished_at IS NULL DO NOTHING
    RETURNING id, partition, state, token, started_at
)
SELECT m.id AS step_id, c.asset, t.partition AS partition_key, 1 AS attempt, c.max_attempts, m.token, m.started_at,
    c.forced, m.state, c.priority, c.config_hash, c.same_config
FROM taken AS t
CROSS JOIN chunk AS c
LEFT JOIN made AS m ON m.id = t.id;
