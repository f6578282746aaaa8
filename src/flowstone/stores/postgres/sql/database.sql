-- The database itself: identity, channels, schema migrations, health, copies for tests.

-- name: identity
-- What shows whether two connections see the same database: its oid, when its server was started, and our table in it.
SELECT d.oid::bigint AS database, pg_catalog.pg_postmaster_start_time() AS server_started,
    pg_catalog.to_regclass('flowstone.runs')::oid::bigint AS runs,
    pg_catalog.current_setting('transaction_read_only') = 'on' AS is_read_only
FROM pg_catalog.pg_database AS d
WHERE d.datname = pg_catalog.current_database();

-- name: exists
-- Whether the server has a database of this name. Index: pg_database_datname_index.
SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = %(name)s);

-- name: create
-- Makes the database of a fresh embedded server. No index.
CREATE DATABASE {name};

-- name: data_directory
-- Whose server answers on a socket: compared with our own data directory before it is joined. No index.
SHOW data_directory;

-- name: listen
-- Subscribes this session to one channel; LISTEN takes no bound parameter, the name is quoted. No index.
LISTEN {channel};

-- name: notify
-- Notify one channel, to see whether the notification arrives. Uses no table.
SELECT pg_catalog.pg_notify(%(channel)s, '');

-- name: server
-- Version of the server, and what is installed of our schema. No table is read.
SELECT
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.to_regclass('flowstone.workers') IS NOT NULL AS has_workers;

-- name: connections
-- How many connections clients may have in all, as this role, and to this database (-1: no limit of its own), and how many
-- there are. Uses no table of ours.
SELECT
    pg_catalog.current_setting('max_connections')::integer
        - pg_catalog.current_setting('superuser_reserved_connections')::integer
        - coalesce(pg_catalog.current_setting('reserved_connections', true)::integer, 0) AS maximum,
    (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user) AS of_role,
    (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS of_database,
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend') AS used;

-- name: backend
-- The process of the server that answers: poolers make up another one when a client connects.
SELECT pg_catalog.pg_backend_pid();

-- name: schemas
-- Schemas that hold the record of migrations of ours, whichever project they belong to. Index: pg_class_relname_nsp_index.
SELECT n.nspname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = 'migrations' AND c.relkind = 'r' AND pg_catalog.starts_with(n.nspname, 'flowstone')
ORDER BY n.nspname;

-- name: installed
-- Whether the bookkeeping exists at all. Index: pg_class_relname_nsp_index.
SELECT pg_catalog.to_regclass('flowstone.migrations') IS NOT NULL;

-- name: try_lock
-- Whether another process migrates right now (only to say so before waiting). No index.
SELECT pg_catalog.pg_try_advisory_lock(%(key)s);

-- name: lock
-- One migrator at a time: a session lock, released by the server when the connection ends. No index.
SELECT pg_catalog.pg_advisory_lock(%(key)s);

-- name: applied
-- What was applied, in order. Index: primary key of flowstone.migrations.
SELECT version, name, checksum, applied_at FROM flowstone.migrations ORDER BY version;

-- name: record
-- Remembers a migration in the transaction that applied it. Index: primary key of flowstone.migrations.
INSERT INTO flowstone.migrations (version, name, checksum)
VALUES (%(version)s, %(name)s, %(checksum)s);

-- name: clone
-- A private copy of the migrated template for one test. No index. Its files are copied, because writing them to the
-- log too takes twice as long; a server before version 15 always does so and has no word for it.
CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY;

-- name: rename
-- Publishes the template only when it is complete. No index.
ALTER DATABASE {name} RENAME TO {template};

-- name: drop
-- Removes the database of one test, whoever is still connected. No index.
DROP DATABASE IF EXISTS {name} WITH (FORCE);

-- name: begin_reading
-- Begin a transaction for a page: it sees one state and writes nothing. No index.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: limit_reading
-- No statement of a page takes longer than 3 seconds, and none is compiled, which would cost more than running it.
-- No index.
SELECT pg_catalog.set_config('statement_timeout', '3s', true), pg_catalog.set_config('jit', 'off', true);

-- name: end_reading
-- End it; there is nothing to keep. No index.
ROLLBACK;
