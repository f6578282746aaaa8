-- Count finished inputs down and make ready whatever has none left. Children are locked in the order of their ids,
-- so that two commits that share children cannot deadlock. Uses steps_pkey.
WITH finished AS (
    SELECT f.child_id, f.inputs
    FROM unnest(%(children)s::bigint[], %(inputs)s::integer[]) AS f (child_id, inputs)
), locked AS (
    SELECT s.id, f.inputs, r.durable, r.max_concurrency, r.paused
    FROM finished AS f
    JOIN flowstone.steps AS s ON s.id = f.child_id
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.state = 'waiting'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
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
