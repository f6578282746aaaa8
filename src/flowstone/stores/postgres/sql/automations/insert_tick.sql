-- Record a tick; returns nothing when its instant is recorded already. Uses ticks_once.
INSERT INTO flowstone.ticks (kind, name, tick_at, state, reason, error, evaluated_at, took_seconds, by_hand, worker)
VALUES (
    %(kind)s, %(name)s, %(tick_at)s, %(state)s, %(reason)s, %(error)s,
    coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()), %(took_seconds)s, %(by_hand)s, %(worker)s
)
ON CONFLICT (kind, name, tick_at) WHERE NOT by_hand DO NOTHING
RETURNING id;
