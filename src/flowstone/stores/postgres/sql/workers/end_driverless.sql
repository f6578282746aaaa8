-- End what nobody will start: steps of inline runs whose process is gone. Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = 'cancelled',
    reason = 'its process was lost before it started',
    error = 'The process ' || coalesce(c.driver, 'that drove this run') || ' was lost before it started this step: it died or lost its lease.',
    error_type = %(error_type)s,
    finished_at = pg_catalog.clock_timestamp()
FROM (
    SELECT o.id, o.state, r.driver
    FROM flowstone.steps AS o
    JOIN flowstone.runs AS r ON r.id = o.run_id
    WHERE o.id = ANY(%(ids)s::bigint[])
        AND o.state IN ('waiting', 'scheduled', 'pending', 'retrying', 'awaiting_approval')
    ORDER BY o.id
    FOR NO KEY UPDATE OF o
) AS c
WHERE s.id = c.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits, c.state = 'awaiting_approval' AS had_requested;
