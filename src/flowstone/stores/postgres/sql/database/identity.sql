-- What shows whether two connections see the same database: its oid, when its server was started, and our table in it.
SELECT d.oid::bigint, pg_catalog.pg_postmaster_start_time(), pg_catalog.to_regclass('flowstone.runs')::oid::bigint,
    pg_catalog.current_setting('transaction_read_only') = 'on'
FROM pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database();
