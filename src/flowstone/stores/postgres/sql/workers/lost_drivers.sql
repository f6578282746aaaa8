-- Steps of inline runs whose process is gone: nobody will ever start them. Uses runs_pkey.
SELECT s.id
FROM flowstone.runs AS r
JOIN flowstone.steps AS s ON s.run_id = r.id
LEFT JOIN flowstone.workers AS w ON w.id = r.driver
WHERE r.state = 'running' AND NOT r.durable AND (w.id IS NULL OR w.lost_at IS NOT NULL)
    AND s.state IN ('waiting', 'scheduled', 'pending', 'retrying', 'awaiting_approval')
ORDER BY s.id
LIMIT %(limit)s;
