-- Count inputs down that were skipped and that their readers can do without; make ready whatever has none left to wait
-- for, unless all of its inputs were skipped: then it is skipped itself. Children are locked in the order of their
-- ids. Uses step_edges_pkey and steps_pkey.
WITH gone AS (
    SELECT e.child_id, pg_catalog.count(*)::integer AS inputs
    FROM flowstone.step_edges AS e
    WHERE e.parent_id = ANY(%(parents)s::bigint[]) AND e.optional
    GROUP BY e.child_id
), locked AS (
    SELECT s.id, g.inputs, r.durable, r.max_concurrency, r.paused
    FROM gone AS g
    JOIN flowstone.steps AS s ON s.id = g.child_id
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.state = 'waiting'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET waiting_on = s.waiting_on - l.inputs,
    skips_left = s.skips_left - l.inputs,
    state = CASE
        WHEN s.skips_left <= l.inputs THEN 'skipped'
        WHEN s.waiting_on > l.inputs THEN 'waiting'
        WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled'
        ELSE 'pending' END,
    reason = CASE WHEN s.skips_left <= l.inputs THEN 'all its inputs were skipped' ELSE s.reason END,
    finished_at = CASE WHEN s.skips_left <= l.inputs THEN pg_catalog.clock_timestamp() END,
    job_id = CASE WHEN s.waiting_on <= l.inputs AND coalesce(s.skips_left > l.inputs, true)
            AND l.durable AND l.max_concurrency IS NULL AND NOT l.paused
        THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) END
FROM locked AS l
WHERE s.id = l.id
RETURNING s.id, s.run_id, s.state, s.job_id, l.durable;
