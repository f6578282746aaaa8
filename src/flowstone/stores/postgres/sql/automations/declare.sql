-- Make a row for each automation that has none. Uses automations_pkey.
INSERT INTO flowstone.automations (kind, name, paused, since, due_at)
SELECT d.kind, d.name, d.paused, clock.now, clock.now
FROM unnest(%(kinds)s::text[], %(names)s::text[], %(paused)s::boolean[]) AS d (kind, name, paused)
CROSS JOIN (SELECT coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()) AS now) AS clock
ON CONFLICT (kind, name) DO NOTHING;
