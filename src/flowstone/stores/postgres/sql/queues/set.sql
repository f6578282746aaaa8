-- Pause, resume or resize a queue in the whole fleet. Uses queues_pkey.
INSERT INTO flowstone.queues AS q (name, paused, node_limit)
VALUES (%(name)s, coalesce(%(paused)s::boolean, false), %(node_limit)s)
ON CONFLICT (name) DO UPDATE
SET paused = coalesce(%(paused)s::boolean, q.paused),
    node_limit = CASE WHEN %(reset_limit)s THEN NULL ELSE coalesce(excluded.node_limit, q.node_limit) END,
    changed_at = pg_catalog.clock_timestamp();
