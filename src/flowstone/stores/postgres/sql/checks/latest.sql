-- The newest result of each check of each partition, of one asset or of all. Uses check_results_latest.
SELECT check_name AS "check", asset, partition, step_id, attempt, token, passed, severity, blocking, description, error, metadata,
    started_at, took_seconds
FROM (
    SELECT DISTINCT ON (r.asset, r.partition, r.check_name) r.*
    FROM flowstone.check_results AS r
    WHERE (%(asset)s::text IS NULL OR r.asset = %(asset)s::text)
        AND (%(partition)s::text IS NULL OR r.partition = %(partition)s::text)
    ORDER BY r.asset, r.partition, r.check_name, r.id DESC
) AS newest
WHERE NOT %(failed)s OR NOT passed
ORDER BY asset COLLATE "C", partition COLLATE "C", check_name COLLATE "C"
LIMIT %(limit)s;
