-- Notify whoever waits for steps and runs; one statement per batch, because NOTIFY takes a lock of the whole server at
-- commit.
SELECT pg_catalog.pg_notify('flowstone.done', m.payload) FROM unnest(%(payloads)s::text[]) AS m (payload);
