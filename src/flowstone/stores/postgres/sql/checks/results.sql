-- Results of the checks of an asset, or of one of its partitions or checks, newest first.
-- Uses check_results_of_asset, check_results_latest, check_results_failed.
SELECT check_name AS "check", asset, partition, step_id, attempt, token, passed, severity, blocking, description, error, metadata,
    started_at, took_seconds
FROM flowstone.check_results
WHERE asset = %(asset)s
    AND (%(partition)s::text IS NULL OR partition = %(partition)s::text)
    AND (%(check)s::text IS NULL OR check_name = %(check)s::text)
    AND (NOT %(failed)s OR NOT passed)
ORDER BY id DESC
LIMIT %(limit)s;
