-- What shows whether two connections see the same database: its oid, when its server was started, and our table in it.
SELECT d.oid::bigint AS database, pg_catalog.pg_postmaster_start_time() AS server_started,
    pg_catalog.to_regclass('flowstone.runs')::oid::bigint AS runs,
    pg_catalog.current_setting('transaction_read_only') = 'on' AS is_read_only
FROM pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database();
