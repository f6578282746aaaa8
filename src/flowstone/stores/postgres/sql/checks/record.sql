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
