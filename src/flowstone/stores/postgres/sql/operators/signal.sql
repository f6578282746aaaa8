-- Notify Oban's nodes of something, on Oban's own channel.
SELECT pg_catalog.pg_notify('public.oban_signal', m.payload) FROM unnest(%(payloads)s::text[]) AS m (payload);
