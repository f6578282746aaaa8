-- Move an automation on: cursor, next evaluation, newest tick; the right ends or is prolonged. Uses automations_pkey.
UPDATE flowstone.automations
SET cursor = %(cursor)s,
    due_at = %(due_at)s,
    failures = %(failures)s,
    last_tick_at = greatest(last_tick_at, %(last_tick_at)s::timestamptz),
    requested = requested AND (%(goes_on)s OR NOT by_hand),
    token = CASE WHEN %(goes_on)s THEN token ELSE 0 END,
    taken_until = CASE
        WHEN %(goes_on)s
            THEN coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp())
                + pg_catalog.make_interval(secs => lease_seconds)
    END
WHERE kind = %(kind)s AND name = %(name)s;
