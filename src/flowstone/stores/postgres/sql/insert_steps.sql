-- Place new steps in one statement; a target that is active is left out (steps_one_active). What many steps have in
-- common, usually all of an asset, comes once, as a kind. Rows are inserted in the order of the index, so that two plans
-- over the same targets wait for each other instead of deadlocking; of a target that comes twice the first is placed.
INSERT INTO flowstone.steps (
    id, run_id, asset, partition, state, waiting_on, priority, queue, max_attempts, forced, job_id, output_step,
    output, code_version, created_at, scheduled_at, reason, limits,
    skips_left, tags, config_hash, finished_at
)
SELECT
    n.id, %(run_id)s, k.asset, n.partition, k.state, k.waiting_on, k.priority, k.queue, k.max_attempts, k.forced,
    CASE
        WHEN k.enqueue THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
        -- begun without a job, see begin_placed.sql
        WHEN k.direct THEN 0 END,
    nullif(n.reuse, 0) /* none serves it */, r.output, k.code_version, %(created_at)s, k.scheduled_at,
    k.reason, k.limits, k.skips_left, k.tags, k.config_hash,
    CASE WHEN k.state IN ('reused', 'upstream_failed', 'skipped') THEN pg_catalog.clock_timestamp() END
FROM unnest(%(ids)s::bigint[], %(kinds)s::integer[], %(partitions)s::text[], %(reuse)s::bigint[])
    AS n (id, kind, partition, reuse)
JOIN pg_catalog.jsonb_to_recordset(%(facts)s) AS k (
    kind integer, asset text, state text, waiting_on integer, priority smallint, queue text, max_attempts integer,
    forced boolean, enqueue boolean, direct boolean, skips_left integer, code_version text, scheduled_at timestamptz,
    reason text, limits jsonb, tags text[], config_hash text
) ON k.kind = n.kind
LEFT JOIN flowstone.steps AS r ON r.id = n.reuse
ORDER BY k.asset, n.partition, n.id
ON CONFLICT (asset, partition) WHERE finished_at IS NULL DO NOTHING
RETURNING id;
