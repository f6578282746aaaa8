-- Notify Oban's nodes, on Oban's own channel; one statement per batch, because NOTIFY takes a lock of the whole server at
-- commit.
SELECT pg_catalog.pg_notify('public.oban_insert', m.payload) FROM unnest(%(payloads)s::text[]) AS m (payload);
