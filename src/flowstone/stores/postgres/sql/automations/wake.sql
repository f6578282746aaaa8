-- Have automations evaluated now that are due later; one that is concluded at this moment decides for itself, so
-- that conclusions never wait for each other. Uses automations_pkey.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()) AS now
),
later AS MATERIALIZED (
    SELECT a.kind, a.name, clock.now
    FROM flowstone.automations AS a
    JOIN unnest(%(kinds)s::text[], %(names)s::text[]) AS requested (kind, name) USING (kind, name)
    CROSS JOIN clock
    WHERE a.due_at > clock.now
    FOR UPDATE OF a SKIP LOCKED
)
UPDATE flowstone.automations AS a
SET due_at = later.now
FROM later
WHERE a.kind = later.kind AND a.name = later.name;
