-- Automations by kind and name, one of them when it is named. Uses automations_pkey.
SELECT kind, name, paused, cursor, since, due_at, last_tick_at, failures
FROM flowstone.automations
WHERE %(kind)s::text IS NULL OR (kind = %(kind)s AND name = %(name)s)
ORDER BY kind, name;
