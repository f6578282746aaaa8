-- Items of some runs that are not over and not asked to stop. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = ANY(%(runs)s::text[]) AND finished_at IS NULL AND state <> 'cancelling'
ORDER BY id
LIMIT %(limit)s;
