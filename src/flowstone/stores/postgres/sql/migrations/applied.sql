-- What was applied, in order. Index: primary key of flowstone.migrations.
SELECT version, name, checksum, applied_at FROM flowstone.migrations ORDER BY version;
