-- Count finished inputs down and make ready whatever has none left. Children are locked in the order of their ids,
-- so that two commits that share children cannot deadlock. Uses steps_pkey.
WITH finished AS (
    SELECT f.child_id, f.inputs
    -- as a subquery, so that the planner does not count them: for some hundred rows it would read the whole table
    FROM unnest((SELECT %(children)s::bigint[]), (SELECT %(inputs)s::integer[])) AS f (child_id, inputs)
    ORDER BY f.child_id
), locked AS MATERIALIZED (
    SELECT s.id, f.inputs, r.durable, r.max_concurrency, r.paused
    FROM finished AS f
    -- one after the other, whatever the planner believes of the table
    CROSS JOIN LATERAL (
        SELECT c.* FROM flowstone.steps AS c
        WHERE c.id = f.child_id AND c.state = 'waiting'
        FOR NO KEY UPDATE
    ) AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
)
UPDATE flowstone.steps AS s
SET waiting_on = s.waiting_on - l.inputs,
    state = CASE
        WHEN s.waiting_on > l.inputs THEN 'waiting'
        WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled'
        ELSE 'pending' END,
    job_id = CASE WHEN s.job_id = 0 THEN 0
        WHEN s.waiting_on <= l.inputs AND l.durable AND l.max_concurrency IS NULL AND NOT l.paused
        THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) END,
    ready_at = CASE WHEN s.job_id = 0 AND s.waiting_on <= l.inputs THEN pg_catalog.clock_timestamp() END
FROM locked AS l
WHERE s.id = l.id
RETURNING s.id, s.run_id, s.state, s.job_id, l.durable, s.queue;
