-- Skip the children that steps have not chosen; their decisions lie with their outputs. Before anything is released, so
-- that none of them ever starts. Uses steps_pkey and step_edges_pkey.
WITH locked AS (
    SELECT s.id, p.asset AS router, p.output #>> '{metadata,flowstone.route,reason}' AS reason
    FROM flowstone.steps AS p
    JOIN flowstone.step_edges AS e ON e.parent_id = p.id
    JOIN flowstone.steps AS s ON s.id = e.child_id
    WHERE p.id = ANY(%(routers)s::bigint[]) AND p.state = 'completed' AND s.state = 'waiting'
        AND p.output #> '{metadata,flowstone.route,not_chosen}' ? s.asset
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET state = 'skipped',
    reason = 'not chosen by ' || l.router || CASE WHEN l.reason <> '' THEN ': ' || l.reason ELSE '' END,
    finished_at = pg_catalog.clock_timestamp()
FROM locked AS l
WHERE s.id = l.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits;
