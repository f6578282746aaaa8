-- Notify one channel, to see whether the notification arrives. Uses no table.
SELECT pg_catalog.pg_notify(%(channel)s, '');
