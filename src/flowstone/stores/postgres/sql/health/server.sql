-- Version of the server, and what is installed of our schema. No table is read.
SELECT
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.to_regclass('flowstone.workers') IS NOT NULL AS has_workers;
