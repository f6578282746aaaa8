-- Items of some runs that are not over. Uses steps_of_run.
SELECT id
FROM flowstone.steps
WHERE run_id = ANY(%(runs)s::text[]) AND finished_at IS NULL
ORDER BY id;
