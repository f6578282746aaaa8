-- Which versions of values are committed, or may still be: of steps that are not over and have no later attempt, and
-- of steps whose output this attempt made. Versions of steps that nobody knows here may belong to another database
-- that shares the storage. Uses the primary key of steps.
SELECT v.version
FROM unnest(%(versions)s::text[], %(steps)s::bigint[], %(attempts)s::integer[]) AS v (version, step_id, attempt)
LEFT JOIN flowstone.steps AS s ON s.id = v.step_id
WHERE s.id IS NULL
    OR (s.finished_at IS NULL AND s.attempt <= v.attempt)
    OR (s.output IS NOT NULL AND s.attempt = v.attempt);
