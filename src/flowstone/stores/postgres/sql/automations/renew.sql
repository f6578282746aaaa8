-- Prolong rights that are still held. Uses automations_pkey.
UPDATE flowstone.automations AS a
SET taken_until = coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp())
    + pg_catalog.make_interval(secs => a.lease_seconds)
FROM unnest(%(kinds)s::text[], %(names)s::text[], %(tokens)s::bigint[]) AS held (kind, name, token)
WHERE a.kind = held.kind AND a.name = held.name AND a.token = held.token;
