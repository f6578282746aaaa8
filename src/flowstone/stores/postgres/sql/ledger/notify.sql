-- Tell whoever listens; one statement per batch, because NOTIFY takes a lock of the whole server at commit.
SELECT pg_catalog.pg_notify(%(channel)s, m.payload) FROM unnest(%(payloads)s::text[]) AS m (payload);
