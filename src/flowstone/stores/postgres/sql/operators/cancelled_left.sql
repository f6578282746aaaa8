-- The same, found from the steps: whoever cancelled a job left no time in its row. Found by the sweep only.
-- Uses steps_one_active and oban_jobs_pkey.
SELECT s.id AS step_id, j.id AS job_id
FROM flowstone.steps AS s
JOIN public.oban_jobs AS j ON j.id = s.job_id AND j.state = 'cancelled'
WHERE s.finished_at IS NULL AND s.state <> 'cancelling'
ORDER BY s.id
LIMIT %(limit)s;
