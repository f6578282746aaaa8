-- Count the newest tick on if it was skipped for the same reason; returns nothing otherwise. Uses ticks_newest.
UPDATE flowstone.ticks
SET repeats = repeats + 1,
    evaluated_at = coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()),
    took_seconds = %(took_seconds)s,
    worker = %(worker)s
WHERE id = (
        SELECT t.id
        FROM flowstone.ticks AS t
        WHERE t.kind = %(kind)s AND t.name = %(name)s
        ORDER BY t.id DESC
        LIMIT 1
    )
    AND state = 'skipped'
    AND NOT by_hand
    AND reason IS NOT DISTINCT FROM %(reason)s::text
    AND run_ids = '{}'
RETURNING id;
