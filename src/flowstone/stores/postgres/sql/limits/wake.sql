-- Let the most urgent steps that wait for a limit try again. Uses steps_parked.
WITH chosen AS (
    SELECT s.id
    FROM flowstone.steps AS s
    WHERE s.parked_for = %(name)s AND s.state = 'pending'
    ORDER BY s.priority, s.id
    LIMIT %(number)s
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET parked_for = NULL, reason = NULL
FROM chosen AS c
WHERE s.id = c.id
RETURNING s.job_id, s.queue;
