-- Version of the server, whether it has Oban's jobs, and what is installed of our schema. No table is read.
SELECT
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.to_regclass('public.oban_jobs') IS NOT NULL AS has_oban,
    pg_catalog.to_regclass('flowstone.workers') IS NOT NULL AS has_workers;
