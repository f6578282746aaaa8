-- The schema and the record of its migrations.
--
-- CREATE SCHEMA IF NOT EXISTS asks for the right to create schemas even when there is nothing to create; the
-- condition lets an administrator hand a prepared schema to a role that may not make one.
DO $$
BEGIN
    IF pg_catalog.to_regnamespace('flowstone') IS NULL THEN
        CREATE SCHEMA flowstone;
    END IF;
END
$$;

CREATE TABLE flowstone.migrations (
    version    integer     PRIMARY KEY CHECK (version > 0),
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
