-- Items of some runs that have no job and are not at work: nobody has to be waited for. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = ANY(%(runs)s::text[]) AND finished_at IS NULL AND job_id IS NULL
    AND state IN ('waiting', 'scheduled', 'pending', 'retrying')
ORDER BY id
LIMIT %(limit)s
FOR NO KEY UPDATE SKIP LOCKED;
