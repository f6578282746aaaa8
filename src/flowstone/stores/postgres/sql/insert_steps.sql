-- Place new steps in one statement; a target that is active is left out (steps_one_active). Rows are inserted in
-- the order of the index, so that two plans over the same targets wait for each other instead of deadlocking.
INSERT INTO flowstone.steps (
    id, run_id, asset, partition, state, waiting_on, priority, queue, max_attempts, forced, job_id, output_step,
    output, code_version, created_at, scheduled_at, reason, limits,
    skips_left, tags, config_hash, finished_at
)
SELECT
    n.id, %(run_id)s, n.asset, n.partition, n.state, n.waiting_on, n.priority, n.queue, n.max_attempts, n.forced,
    CASE
        WHEN n.enqueue THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
        -- begun without a job, see begin_placed.sql
        WHEN n.direct THEN 0 END,
    n.reuse, r.output, n.code_version, %(created_at)s, n.scheduled_at,
    n.reason, n.limits, n.skips_left, n.tags, n.config_hash,
    CASE WHEN n.state IN ('reused', 'upstream_failed', 'skipped') THEN pg_catalog.clock_timestamp() END
FROM pg_catalog.jsonb_to_recordset(%(steps)s) AS n (
    id bigint, asset text, partition text, state text, waiting_on integer, priority smallint, queue text,
    max_attempts integer, forced boolean, enqueue boolean, direct boolean, reuse bigint, code_version text, scheduled_at timestamptz,
    reason text, limits jsonb, skips_left integer, tags text[], config_hash text
)
LEFT JOIN flowstone.steps AS r ON r.id = n.reuse
ORDER BY n.asset, n.partition
ON CONFLICT (asset, partition) WHERE finished_at IS NULL DO NOTHING
RETURNING id;
