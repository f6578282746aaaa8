-- Take automations that are due and evaluated by nobody, the longest due first. Uses automations_pkey.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()) AS now
),
due AS MATERIALIZED (
    SELECT a.kind, a.name, clock.now
    FROM flowstone.automations AS a
    JOIN unnest(%(kinds)s::text[], %(names)s::text[]) AS requested (kind, name) USING (kind, name)
    CROSS JOIN clock
    WHERE (a.taken_until IS NULL OR a.taken_until <= clock.now)
        AND (
            a.requested
            OR (
                NOT %(by_hand_only)s
                AND NOT a.paused
                AND a.due_at <= clock.now
                AND NOT (
                    a.kind = 'sensor'
                    AND EXISTS (SELECT FROM flowstone.queues AS q WHERE q.name = 'sensors' AND q.paused)
                )
            )
        )
    ORDER BY coalesce(a.due_at, clock.now), a.kind, a.name
    LIMIT %(limit)s
    FOR UPDATE OF a SKIP LOCKED
)
UPDATE flowstone.automations AS a
SET token = pg_catalog.nextval('flowstone.tokens'),
    taken_until = due.now + pg_catalog.make_interval(secs => %(lease_seconds)s),
    lease_seconds = %(lease_seconds)s,
    by_hand = a.requested
FROM due
WHERE a.kind = due.kind AND a.name = due.name
RETURNING a.kind, a.name, a.paused, a.cursor, a.since, a.due_at, a.last_tick_at, a.failures,
    a.token, due.now, a.by_hand;
