-- Tables that others read, and the book-keeping beside them, in their own database: PostgreSQL and DuckDB take these
-- statements alike. `?` stands for a parameter, `{...}` for quoted names of tables and columns.

-- name: make_books
-- The book-keeping is there from the first value on.
CREATE SCHEMA IF NOT EXISTS flowstone_tables;

-- name: make_book_of_tables
-- Which tables there are, who writes them, and their columns.
CREATE TABLE IF NOT EXISTS flowstone_tables.tables (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    owner text NOT NULL,
    columns text NOT NULL,
    partition_kind text,
    PRIMARY KEY (schema_name, table_name)
);

-- name: make_book_of_versions
-- The versions that are stored, committed or not.
CREATE TABLE IF NOT EXISTS flowstone_tables.versions (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    version text NOT NULL,
    partition_key text NOT NULL,
    row_count bigint NOT NULL,
    kept boolean NOT NULL,
    columns text NOT NULL,
    description text NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schema_name, table_name, version)
);

-- name: make_book_of_partitions
-- Which version of a partition is visible, and the token of its publication, which refuses older ones.
CREATE TABLE IF NOT EXISTS flowstone_tables.partitions (
    schema_name text NOT NULL,
    table_name text NOT NULL,
    partition_key text NOT NULL,
    issuer text NOT NULL,
    token bigint NOT NULL,
    version text,
    published_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schema_name, table_name, partition_key)
);

-- name: is_there
-- Whether a table of this name exists.
SELECT count(*) FROM information_schema.tables WHERE lower(table_schema) = lower(?) AND lower(table_name) = lower(?);

-- name: schema_is_there
-- Whether there is a schema of this name.
SELECT count(*) FROM information_schema.schemata WHERE lower(schema_name) = lower(?);

-- name: table
-- What is known of a table.
SELECT owner, columns, partition_kind FROM flowstone_tables.tables WHERE schema_name = ? AND table_name = ?;

-- name: tables
-- Every table.
SELECT schema_name, table_name FROM flowstone_tables.tables ORDER BY 1, 2;

-- name: add_table
-- Note a table that was made.
INSERT INTO flowstone_tables.tables (schema_name, table_name, owner, columns, partition_kind) VALUES (?, ?, ?, ?, ?);

-- name: change_table
-- Note that columns were added or widened.
UPDATE flowstone_tables.tables SET columns = ? WHERE schema_name = ? AND table_name = ?;

-- name: version
-- What is known of a version.
SELECT partition_key, row_count, kept, columns, description
FROM flowstone_tables.versions WHERE schema_name = ? AND table_name = ? AND version = ?;

-- name: add_version
-- Note a version whose rows are stored beside its table.
INSERT INTO flowstone_tables.versions
    (schema_name, table_name, version, partition_key, row_count, kept, columns, description)
VALUES (?, ?, ?, ?, ?, true, ?, ?);

-- name: delete_version
-- Forget a version.
DELETE FROM flowstone_tables.versions WHERE schema_name = ? AND table_name = ? AND version = ?;

-- name: let_go
-- Note that the rows of a version are in the table that others read, and no more beside it.
UPDATE flowstone_tables.versions SET kept = false WHERE schema_name = ? AND table_name = ? AND version = ?;

-- name: versions_of
-- The versions of a table behind one of them, a page at a time.
SELECT version FROM flowstone_tables.versions
WHERE schema_name = ? AND table_name = ? AND version > ? ORDER BY version LIMIT 1000;

-- name: versions_of_partition
-- The versions of a partition.
SELECT version FROM flowstone_tables.versions
WHERE schema_name = ? AND table_name = ? AND partition_key = ? ORDER BY version;

-- name: versions_named
-- Which of some versions there are, and whether they are visible.
SELECT v.version, coalesce(p.version = v.version, false) AS is_visible
FROM flowstone_tables.versions AS v
LEFT JOIN flowstone_tables.partitions AS p
    ON p.schema_name = v.schema_name AND p.table_name = v.table_name AND p.partition_key = v.partition_key
WHERE v.schema_name = ? AND v.table_name = ? AND v.version = ANY(?);

-- name: delete_versions
-- Forget versions.
DELETE FROM flowstone_tables.versions WHERE schema_name = ? AND table_name = ? AND version = ANY(?);

-- name: add_partition
-- Make the row of a partition that is published for the first time: the next statement locks it.
INSERT INTO flowstone_tables.partitions (schema_name, table_name, partition_key, issuer, token, version)
VALUES (?, ?, ?, '', 0, NULL) ON CONFLICT DO NOTHING;

-- name: partition
-- Who published last of a partition, and which version is visible.
SELECT issuer, token, version FROM flowstone_tables.partitions
WHERE schema_name = ? AND table_name = ? AND partition_key = ?;

-- name: point
-- Note which version of a partition is visible from now on.
UPDATE flowstone_tables.partitions SET issuer = ?, token = ?, version = ?, published_at = now()
WHERE schema_name = ? AND table_name = ? AND partition_key = ?;

-- name: read
-- Columns of rows, of a version or of what is visible.
SELECT {columns} FROM {source};

-- name: add_rows
-- Put the rows that travel as an Arrow table beside a table.
INSERT INTO {beside} ({columns}, flowstone_row, flowstone_version)
SELECT {columns}, flowstone_row, ? FROM flowstone_incoming;

-- name: make_schema
-- The schema of tables that others read.
CREATE SCHEMA {schema};

-- name: make_table
-- A table that others read, or the one beside it.
CREATE TABLE {table} ({columns});

-- name: index_beside
-- Rows of a version, in their order.
CREATE INDEX ON {table} (flowstone_version, flowstone_row);

-- name: index_partition
-- Rows of a partition.
CREATE INDEX ON {table} ({partition});

-- name: add_column
-- A column that a version brings.
ALTER TABLE {table} ADD COLUMN {column};

-- name: widen_column
-- A column whose values need a wider type.
ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind};

-- name: hide_all
-- Take the rows of an asset without partitions out of sight.
DELETE FROM {table};

-- name: hide
-- Take the rows of exactly this partition out of sight.
DELETE FROM {table} WHERE {partition} = ?;

-- name: show_all
-- Put the rows of a version of an asset without partitions in sight.
INSERT INTO {table} ({columns}) SELECT {columns} FROM {beside} WHERE flowstone_version = ? ORDER BY flowstone_row;

-- name: show
-- Put the rows of a version of a partition in sight.
INSERT INTO {table} ({columns}, {partition})
SELECT {columns}, CAST(? AS {kind}) FROM {beside} WHERE flowstone_version = ? ORDER BY flowstone_row;

-- name: forget_rows
-- Delete the rows of a version beside its table.
DELETE FROM {beside} WHERE flowstone_version = ?;

-- name: forget_rows_of
-- Delete the rows of versions beside their table.
DELETE FROM {beside} WHERE flowstone_version = ANY(?);
