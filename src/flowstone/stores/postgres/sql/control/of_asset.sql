-- Steps of one asset that are over, with the values that they stored. Uses steps_of_target.
SELECT s.id, CASE WHEN s.output_step = s.id THEN s.output END AS output
FROM flowstone.steps AS s
WHERE s.asset = %(asset)s AND s.finished_at IS NOT NULL
ORDER BY s.id
LIMIT %(limit)s
FOR UPDATE OF s SKIP LOCKED;
