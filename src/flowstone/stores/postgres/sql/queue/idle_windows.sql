-- Limited runs with room in their window and steps to put there; only a lost refill leaves such a run behind.
-- Uses steps_to_place.
SELECT r.id AS run_id, r.max_concurrency - w.placed AS room, w.placed
FROM flowstone.runs AS r
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS placed
    FROM flowstone.steps AS s
    WHERE s.run_id = r.id AND s.job_id IS NOT NULL
        AND s.state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling')
) AS w
WHERE r.durable AND r.state = 'running' AND NOT r.paused AND r.max_concurrency > w.placed
    AND EXISTS (
        SELECT FROM flowstone.steps AS s WHERE s.run_id = r.id AND s.state = 'pending' AND s.job_id IS NULL
    )
ORDER BY r.id
FOR NO KEY UPDATE OF r SKIP LOCKED;
