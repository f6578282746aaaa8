-- Ask for an evaluation by hand. Uses automations_pkey.
INSERT INTO flowstone.automations AS a (kind, name, requested, since, due_at)
SELECT %(kind)s, %(name)s, true, clock.now, clock.now
FROM (SELECT coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()) AS now) AS clock
ON CONFLICT (kind, name) DO UPDATE SET requested = true;
