-- Results of checks.

-- name: latest
-- The newest result of each check of each partition, of one asset or of all, read from check_results_latest in its order until
-- there are enough.
SELECT check_name AS "check", asset, partition AS partition_key, step_id, attempt, token, passed, severity, blocking,
    description, error, metadata,
    started_at, took_seconds
FROM (
    SELECT DISTINCT ON (r.asset, r.partition, r.check_name) r.*
    FROM flowstone.check_results AS r
    WHERE (%(asset)s::text IS NULL OR r.asset = %(asset)s::text)
        AND (%(partition)s::text IS NULL OR r.partition = %(partition)s::text)
    ORDER BY r.asset, r.partition, r.check_name, r.id DESC
    LIMIT %(limit)s
) AS newest
ORDER BY asset COLLATE "C", partition COLLATE "C", check_name COLLATE "C";

-- name: latest_failed
-- The checks of partitions whose newest result is a failure, of one asset or of all, the last failures. Uses
-- check_results_failed and check_results_latest; results that passed are not read.
SELECT check_name AS "check", asset, partition AS partition_key, step_id, attempt, token, passed, severity, blocking,
    description, error, metadata,
    started_at, took_seconds
FROM (
    SELECT r.*
    FROM flowstone.check_results AS r
    WHERE NOT r.passed
        AND (%(asset)s::text IS NULL OR r.asset = %(asset)s::text)
        AND (%(partition)s::text IS NULL OR r.partition = %(partition)s::text)
        AND NOT EXISTS (
            SELECT FROM flowstone.check_results AS n
            WHERE n.asset = r.asset AND n.partition = r.partition AND n.check_name = r.check_name AND n.id > r.id
        )
    ORDER BY r.id DESC
    LIMIT %(limit)s
) AS newest
ORDER BY asset COLLATE "C", partition COLLATE "C", check_name COLLATE "C";

-- name: of_steps
-- The newest result of each check of some steps, in the order of their first results. Uses check_results_of_step.
SELECT check_name AS "check", asset, partition AS partition_key, step_id, attempt, token, passed, severity, blocking,
    description, error, metadata,
    started_at, took_seconds
FROM (
    SELECT DISTINCT ON (r.step_id, r.check_name) r.*, min(r.id) OVER (PARTITION BY r.step_id, r.check_name) AS first_id
    FROM flowstone.check_results AS r
    WHERE r.step_id = ANY(%(steps)s::bigint[])
    ORDER BY r.step_id, r.check_name, r.id DESC
) AS newest
ORDER BY first_id;

-- name: record
-- Record what checks found, of attempts whose token is still the newest of their steps; without a token, of committed
-- versions that were checked again. Uses steps_pkey.
INSERT INTO flowstone.check_results (
    step_id, attempt, token, asset, partition, check_name, passed, severity, blocking, description, error, metadata,
    started_at, took_seconds
)
SELECT s.id, c.attempt, s.token, s.asset, s.partition, c."check", c.passed, c.severity, c.blocking, c.description,
    c.error, c.metadata, c.started_at, c.took_seconds
FROM ROWS FROM (
    pg_catalog.jsonb_to_recordset(%(rows)s) AS (
        step_id bigint, attempt integer, token bigint, "check" text, passed boolean, severity text, blocking boolean,
        description text, error text, metadata jsonb, started_at timestamptz, took_seconds double precision
    )
) WITH ORDINALITY AS c (
    step_id, attempt, token, "check", passed, severity, blocking, description, error, metadata, started_at, took_seconds,
    position
)
JOIN flowstone.steps AS s ON s.id = c.step_id AND s.token = coalesce(c.token, s.token)
ORDER BY c.position;

-- name: results
-- Results of the checks of an asset, or of one of its partitions or checks, newest first.
-- Uses check_results_of_asset, check_results_latest, check_results_failed.
SELECT check_name AS "check", asset, partition AS partition_key, step_id, attempt, token, passed, severity, blocking,
    description, error, metadata,
    started_at, took_seconds
FROM flowstone.check_results
WHERE asset = %(asset)s
    AND (%(partition)s::text IS NULL OR partition = %(partition)s::text)
    AND (%(check)s::text IS NULL OR check_name = %(check)s::text)
    AND (NOT %(failed)s OR NOT passed)
ORDER BY id DESC
LIMIT %(limit)s;
