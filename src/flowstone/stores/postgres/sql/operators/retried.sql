-- Steps whose jobs were made available with Oban's tools although they are over, locked; with what decides whether
-- they can run again. Uses steps_pkey, runs_pkey and steps_one_active.
SELECT s.id AS step_id, s.job_id, s.state, s.run_id, s.is_item OR r.releases_step IS NOT NULL AS is_item,
    r.durable,
    (
        SELECT o.id FROM flowstone.steps AS o
        WHERE o.asset = s.asset AND o.partition = s.partition AND o.finished_at IS NULL
        LIMIT 1
    ) AS active
FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[]) AS g (job_id, step_id)
JOIN flowstone.steps AS s ON s.id = g.step_id AND s.job_id = g.job_id
JOIN flowstone.runs AS r ON r.id = s.run_id
WHERE s.finished_at IS NOT NULL
ORDER BY s.id
FOR NO KEY UPDATE OF s;
