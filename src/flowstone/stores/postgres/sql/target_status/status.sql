-- How targets stand, given as [[asset, partition], ...]: the version in use, and the newest step that was not served by
-- an earlier version; of two steps only the newer one can be active. Uses current_outputs_pkey, steps_pkey,
-- steps_of_target.
SELECT t.position,
    c.step_id AS committed_step, c.committed_at, s.code_version AS committed_code,
    s.output ->> 'content_hash' AS content_hash, s.started_at AS committed_started_at,
    n.id AS newest_step, n.state AS newest_state, n.code_version AS newest_code, n.placed_at, n.started_at,
    n.finished_at, n.run_id
FROM pg_catalog.jsonb_array_elements(%(targets)s::jsonb) WITH ORDINALITY AS t (target, position)
LEFT JOIN flowstone.current_outputs AS c ON c.asset = t.target ->> 0 AND c.partition = t.target ->> 1
LEFT JOIN flowstone.steps AS s ON s.id = c.step_id
LEFT JOIN LATERAL (
    SELECT o.id, o.state, o.code_version, o.placed_at, o.started_at, o.finished_at, o.run_id
    FROM flowstone.steps AS o
    WHERE o.asset = t.target ->> 0 AND o.partition = t.target ->> 1 AND o.state <> 'reused'
    ORDER BY o.id DESC
    LIMIT 1
) AS n ON true
WHERE c.step_id IS NOT NULL OR n.id IS NOT NULL;
