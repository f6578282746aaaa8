-- Whether somebody else migrates right now (only to say so before waiting). No index.
SELECT pg_catalog.pg_try_advisory_lock(%(key)s);
