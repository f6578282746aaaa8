-- Attempts whose worker is lost or unknown: what a rescue ends. Uses steps_at_work.
SELECT s.id, s.token, s.attempt, s.max_attempts, s.asset, s.worker, r.durable,
    coalesce(s.token = ANY(w.unstarted), false) AS unstarted
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = s.run_id
LEFT JOIN flowstone.workers AS w ON w.id = s.worker
WHERE s.state IN ('running', 'cancelling') AND (w.id IS NULL OR w.lost_at IS NOT NULL)
ORDER BY s.id
LIMIT %(limit)s
FOR NO KEY UPDATE OF s SKIP LOCKED;
