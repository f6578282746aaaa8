-- End everything that waits, however indirectly, for steps that will never have a result. What was skipped ends only
-- what cannot do without it: `do_without` sees to the others.
-- Uses step_edges_pkey and steps_pkey.
WITH RECURSIVE below AS (
    SELECT e.child_id AS id, e.parent_id AS cause
    FROM flowstone.step_edges AS e
    WHERE e.parent_id = ANY(%(parents)s::bigint[]) AND NOT (e.optional AND %(state)s::text = 'skipped')
    UNION
    SELECT e.child_id, b.cause
    FROM below AS b
    JOIN flowstone.steps AS s ON s.id = b.id AND s.state = 'waiting'
    JOIN flowstone.step_edges AS e ON e.parent_id = b.id AND NOT (e.optional AND %(state)s::text = 'skipped')
), locked AS (
    SELECT s.id, first.cause
    FROM (SELECT id, pg_catalog.min(cause) AS cause FROM below GROUP BY id) AS first
    JOIN flowstone.steps AS s ON s.id = first.id
    WHERE s.state = 'waiting'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET state = %(state)s,
    reason = 'input ' || pg_catalog.rtrim(c.asset || ' ' || c.partition) || ' ended as ' || c.state,
    finished_at = pg_catalog.clock_timestamp()
FROM locked AS l
JOIN flowstone.steps AS c ON c.id = l.cause
WHERE s.id = l.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits;
