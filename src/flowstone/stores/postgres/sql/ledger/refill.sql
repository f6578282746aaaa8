-- Place the next steps of a run whose window has room. The caller holds the lock of the run's row.
-- Uses steps_to_place.
WITH chosen AS (
    SELECT s.id
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id AND NOT r.paused
    WHERE s.run_id = %(run_id)s AND s.state = 'pending' AND s.job_id IS NULL
    ORDER BY s.priority, s.id
    LIMIT %(room)s
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET reason = NULL,
    job_id = pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id'))
FROM chosen AS c
WHERE s.id = c.id
RETURNING s.id;
