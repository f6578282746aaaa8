-- The newest step of some targets that was placed within some seconds, over or not. Uses steps_of_target.
SELECT w.position, n.id, n.run_id, n.state, n.config_hash
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) WITH ORDINALITY AS w (asset, partition, position)
CROSS JOIN LATERAL (
    SELECT s.id, s.run_id, s.state, s.config_hash
    FROM flowstone.steps AS s
    WHERE s.asset = w.asset AND s.partition = w.partition AND s.run_id <> %(run_id)s
        AND s.placed_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s)
    ORDER BY s.id DESC
    LIMIT 1
) AS n;
