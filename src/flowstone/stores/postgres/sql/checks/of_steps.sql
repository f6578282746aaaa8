-- The newest result of each check of some steps, in the order of their first results. Uses check_results_of_step.
SELECT check_name AS "check", asset, partition, step_id, attempt, token, passed, severity, blocking, description, error, metadata,
    started_at, took_seconds
FROM (
    SELECT DISTINCT ON (r.step_id, r.check_name) r.*, min(r.id) OVER (PARTITION BY r.step_id, r.check_name) AS first_id
    FROM flowstone.check_results AS r
    WHERE r.step_id = ANY(%(steps)s::bigint[])
    ORDER BY r.step_id, r.check_name, r.id DESC
) AS newest
ORDER BY first_id;
