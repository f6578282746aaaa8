-- Partitions of a run that cannot begin, because they are under way elsewhere with another config: failed steps.
INSERT INTO flowstone.steps (
    id, run_id, asset, partition, state, priority, queue, max_attempts, error, error_type, config_hash, created_at,
    finished_at
)
SELECT pg_catalog.nextval('flowstone.step_ids'), %(run_id)s, %(asset)s, t.partition, 'failed', %(priority)s, %(queue)s, 1,
    t.error, %(error_type)s, %(config_hash)s, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp()
FROM unnest(%(partitions)s::text[], %(errors)s::text[]) AS t (partition, error)
RETURNING id;
