-- Schedules, sensors and conditions: their leased tokens, ticks, cursors, run keys.

-- name: declare
-- Make a row for each automation that has none. Uses automations_pkey.
INSERT INTO flowstone.automations (kind, name, paused, since, due_at)
SELECT d.kind, d.name, d.paused, clock.now, clock.now
FROM unnest(%(kinds)s::text[], %(names)s::text[], %(paused)s::boolean[]) AS d (kind, name, paused)
CROSS JOIN (SELECT coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()) AS now) AS clock
ON CONFLICT (kind, name) DO NOTHING;

-- name: records
-- Automations by kind and name, one of them when it is named. Uses automations_pkey.
SELECT kind, name, paused, cursor, since, due_at, last_tick_at, failures
FROM flowstone.automations
WHERE %(kind)s::text IS NULL OR (kind = %(kind)s AND name = %(name)s)
ORDER BY kind, name;

-- name: take
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

-- name: renew
-- Prolong rights that are still held. Uses automations_pkey.
UPDATE flowstone.automations AS a
SET taken_until = coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp())
    + pg_catalog.make_interval(secs => a.lease_seconds)
FROM unnest(%(kinds)s::text[], %(names)s::text[], %(tokens)s::bigint[]) AS held (kind, name, token)
WHERE a.kind = held.kind AND a.name = held.name AND a.token = held.token;

-- name: hold
-- Lock an automation for its conclusion; returns nothing when another worker has the right. Uses automations_pkey.
SELECT by_hand
FROM flowstone.automations
WHERE kind = %(kind)s AND name = %(name)s AND token = %(token)s AND token <> 0
FOR UPDATE;

-- name: release
-- End the right to evaluate without a conclusion: the automation is due as it was. Uses automations_pkey.
UPDATE flowstone.automations
SET token = 0, taken_until = NULL
WHERE kind = %(kind)s AND name = %(name)s AND token = %(token)s;

-- name: wake
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

-- name: insert_tick
-- Record a tick; returns nothing when its instant is recorded already. Uses ticks_once.
INSERT INTO flowstone.ticks (kind, name, tick_at, state, reason, error, evaluated_at, took_seconds, by_hand, worker)
VALUES (
    %(kind)s, %(name)s, %(tick_at)s, %(state)s, %(reason)s, %(error)s,
    coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()), %(took_seconds)s, %(by_hand)s, %(worker)s
)
ON CONFLICT (kind, name, tick_at) WHERE NOT by_hand DO NOTHING
RETURNING id;

-- name: repeat_tick
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

-- name: finish_tick
-- Record which runs a tick placed. Uses ticks_pkey.
UPDATE flowstone.ticks
SET run_ids = %(run_ids)s, state = %(state)s, reason = %(reason)s
WHERE id = %(id)s;

-- name: conclude
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

-- name: request
-- Ask for an evaluation by hand. Uses automations_pkey.
INSERT INTO flowstone.automations AS a (kind, name, requested, since, due_at)
SELECT %(kind)s, %(name)s, true, clock.now, clock.now
FROM (SELECT coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp()) AS now) AS clock
ON CONFLICT (kind, name) DO UPDATE SET requested = true;

-- name: run_keys
-- The run keys that an automation has used, the newest first; all, or one. Uses run_keys_newest or run_keys_pkey.
SELECT run_key, run_id, used_at
FROM flowstone.run_keys
WHERE kind = %(kind)s AND name = %(name)s AND forgotten_at IS NULL
    AND (%(run_key)s::text IS NULL OR run_key = %(run_key)s)
ORDER BY used_at DESC, run_key
LIMIT %(limit)s;

-- name: use_key
-- Use a run key and return the id of its run; returns nothing when it was used before and not forgotten since. The run
-- of a forgotten key gets an id of its own. Uses run_keys_pkey.
INSERT INTO flowstone.run_keys AS k (kind, name, run_key, run_id)
VALUES (%(kind)s, %(name)s, %(run_key)s, %(run_id)s)
ON CONFLICT (kind, name, run_key) DO UPDATE
SET run_id = excluded.run_id || '-' || (k.times + 1)::text, times = k.times + 1,
    used_at = pg_catalog.clock_timestamp(), forgotten_at = NULL
WHERE k.forgotten_at IS NOT NULL
RETURNING run_id;

-- name: forget_keys
-- Let run keys trigger again; the rows stay, so that their next runs get ids of their own. Uses run_keys_pkey.
UPDATE flowstone.run_keys
SET forgotten_at = pg_catalog.clock_timestamp()
WHERE kind = %(kind)s AND name = %(name)s AND run_key = ANY(%(run_keys)s::text[]) AND forgotten_at IS NULL
RETURNING run_key;

-- name: set_cursor
-- Set a cursor by hand; an evaluation at work loses its right. Uses automations_pkey.
UPDATE flowstone.automations
SET cursor = %(cursor)s, token = 0, taken_until = NULL
WHERE kind = %(kind)s AND name = %(name)s;

-- name: set_paused
-- Pause or resume an automation; returns a row when that changed anything. Uses automations_pkey.
UPDATE flowstone.automations
SET paused = %(paused)s
WHERE kind = %(kind)s AND name = %(name)s AND paused <> %(paused)s
RETURNING name;

-- name: ticks
-- The newest ticks of an automation. Uses ticks_newest.
SELECT id, kind, name, tick_at, state, reason, error, run_ids, evaluated_at, took_seconds, by_hand, worker, repeats
FROM flowstone.ticks
WHERE kind = %(kind)s AND name = %(name)s
ORDER BY id DESC
LIMIT %(limit)s;

-- name: all_ticks
-- The newest ticks of all automations. Uses ticks_pkey.
SELECT id, kind, name, tick_at, state, reason, error, run_ids, evaluated_at, took_seconds, by_hand, worker, repeats
FROM flowstone.ticks
ORDER BY id DESC
LIMIT %(limit)s;

-- name: old_ticks
-- How many ticks automations/prune_ticks would forget. Scans ticks by age.
SELECT pg_catalog.count(*)
FROM flowstone.ticks
WHERE evaluated_at < coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp())
    - pg_catalog.make_interval(secs => %(older_than_seconds)s);

-- name: prune_ticks
-- Forget old ticks; the newest regular one of each automation is in its own row. Scans ticks by age.
DELETE FROM flowstone.ticks
WHERE evaluated_at < coalesce(%(now)s::timestamptz, pg_catalog.clock_timestamp())
    - pg_catalog.make_interval(secs => %(older_than_seconds)s)
RETURNING id;
