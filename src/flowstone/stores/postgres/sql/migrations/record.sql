-- Remembers a migration in the transaction that applied it. Index: primary key of flowstone.migrations.
INSERT INTO flowstone.migrations (version, name, checksum)
VALUES (%(version)s, %(name)s, %(checksum)s);
