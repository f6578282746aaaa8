-- One migrator at a time: a session lock, released by the server when the connection ends. No index.
SELECT pg_catalog.pg_advisory_lock(%(key)s);
