-- Notifications: decided in the transactions of others, claimed, sent or given up.

-- name: rules
-- What the apps of the project are to be notified of. Uses notify_rules_pkey.
SELECT name, events, assets, automations, wait_seconds, deadline_seconds FROM flowstone.notify_rules ORDER BY name;

-- name: declare
-- Have rules hold in every process, in place of earlier ones that are only about these assets: an app that declares a
-- rule no more leaves none behind. In the order of their names, as all do. Uses notify_rules_pkey.
WITH given AS (
    SELECT *
    FROM pg_catalog.jsonb_to_recordset(%(rules)s) AS g (
        name text, events text[], assets text[], automations text[], wait_seconds double precision,
        deadline_seconds double precision
    )
), gone AS (
    DELETE FROM flowstone.notify_rules AS r
    WHERE r.assets <@ %(assets)s::text[] AND NOT EXISTS (SELECT FROM given AS g WHERE g.name = r.name)
)
INSERT INTO flowstone.notify_rules AS r (name, events, assets, automations, wait_seconds, deadline_seconds)
SELECT g.name, g.events, g.assets, g.automations, g.wait_seconds, g.deadline_seconds FROM given AS g ORDER BY g.name
ON CONFLICT (name) DO UPDATE
SET events = excluded.events,
    assets = excluded.assets,
    automations = excluded.automations,
    wait_seconds = excluded.wait_seconds,
    deadline_seconds = excluded.deadline_seconds,
    declared_at = pg_catalog.clock_timestamp();

-- name: renew_rules
-- Note that rules are declared still. Uses notify_rules_pkey.
UPDATE flowstone.notify_rules SET declared_at = pg_catalog.clock_timestamp()
WHERE name = ANY(%(own)s::text[]) AND declared_at < pg_catalog.clock_timestamp() - interval '1 hour';

-- name: forget_rules
-- Forget rules that no process has declared for so long: what they would decide nobody sends.
DELETE FROM flowstone.notify_rules
WHERE declared_at <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s::double precision)
    AND name <> ALL(%(own)s::text[]);

-- name: abandon
-- Give up what has waited so long for a rule that no process declares. Uses notifications_pending.
UPDATE flowstone.notifications AS n
SET state = 'given_up', collects = false, error = %(error)s
WHERE n.state = 'pending' AND n.rule <> ALL(%(own)s::text[])
    AND NOT EXISTS (SELECT FROM flowstone.notify_rules AS r WHERE r.name = n.rule)
    AND greatest(n.claim_after, n.due_at)
        <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s::double precision)
RETURNING n.id, n.rule, n.key, n.run_id, n.state, n.counts, n.notices, n.created_at, n.attempts, n.error, n.sent_at, n.token;

-- name: erase
-- Take what notices quote of steps out of them. Uses steps_pkey and notifications_of_run; those of no run are few.
UPDATE flowstone.notifications AS n
SET notices = (
    SELECT pg_catalog.jsonb_agg(
        CASE WHEN (q.value ->> 'step_id')::bigint = ANY(%(steps)s::bigint[]) AND q.value ? 'text'
        THEN q.value || '{"text": "erased"}' ELSE q.value END
        ORDER BY q.position
    )
    FROM pg_catalog.jsonb_array_elements(n.notices) WITH ORDINALITY AS q (value, position)
)
WHERE n.id IN (
    SELECT o.id
    FROM (
        SELECT r.id, r.notices
        FROM (SELECT DISTINCT s.run_id FROM flowstone.steps AS s WHERE s.id = ANY(%(steps)s::bigint[])) AS e
        JOIN flowstone.notifications AS r ON r.run_id = e.run_id
        UNION ALL
        SELECT r.id, r.notices FROM flowstone.notifications AS r WHERE r.run_id IS NULL
    ) AS o
    WHERE EXISTS (
        SELECT FROM pg_catalog.jsonb_array_elements(o.notices) AS q (value)
        WHERE (q.value ->> 'step_id')::bigint = ANY(%(steps)s::bigint[])
    )
    ORDER BY o.id
);

-- name: ended
-- What a message says of steps that ended without a result, items of scatters apart: the step above speaks for them.
-- Uses steps_pkey.
SELECT s.id AS step_id, s.run_id, s.asset, s.partition AS partition_key,
    s.state, s.reason, pg_catalog.right(s.error, 20000) AS error, s.error_type, s.finished_at
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND NOT s.is_item
    AND (s.state IN ('failed', 'upstream_failed') OR (s.state = 'cancelled' AND s.error_type = %(lost)s))
ORDER BY s.id;

-- name: add
-- Add notices to the notifications that collect them, or begin such; in the order of rule and key, as all do. The rows of
-- the runs are locked before. The second notification of a run waits for its end. Uses notifications_collecting and
-- notifications_of_key.
INSERT INTO flowstone.notifications AS n (rule, key, run_id, counts, notices, due_at)
SELECT a.rule, a.key, a.run_id, a.counts, a.notices,
    pg_catalog.clock_timestamp() + CASE
        WHEN a.run_id IS NULL OR NOT a.waits THEN interval '0'
        WHEN EXISTS (SELECT FROM flowstone.notifications AS e WHERE e.rule = a.rule AND e.key = a.key AND NOT e.collects)
        THEN interval '1 day'
        ELSE pg_catalog.make_interval(secs => a.wait_seconds) END
FROM pg_catalog.jsonb_to_recordset(%(groups)s) AS a (
    rule text, key text, run_id text, waits boolean, wait_seconds double precision, counts jsonb, notices jsonb
)
ORDER BY a.rule, a.key
ON CONFLICT (rule, key) WHERE collects DO UPDATE
SET counts = (
        SELECT pg_catalog.jsonb_object_agg(c.event, c.number)
        FROM (
            SELECT o.key AS event, pg_catalog.sum(o.value::bigint) AS number
            FROM (
                SELECT * FROM pg_catalog.jsonb_each_text(n.counts)
                UNION ALL
                SELECT * FROM pg_catalog.jsonb_each_text(excluded.counts)
            ) AS o
            GROUP BY o.key
        ) AS c
    ),
    notices = CASE WHEN pg_catalog.jsonb_array_length(n.notices) >= %(maximum)s THEN n.notices ELSE (
        SELECT pg_catalog.jsonb_agg(m.value ORDER BY m.position)
        FROM pg_catalog.jsonb_array_elements(n.notices || excluded.notices) WITH ORDINALITY AS m (value, position)
        WHERE m.position <= %(maximum)s
    ) END;

-- name: mark
-- Remember that something failed, in one order for all; returns what was not remembered yet. Uses notify_marks_pkey.
INSERT INTO flowstone.notify_marks (kind, subject, partition, detail)
SELECT m.kind, m.subject, m.partition, m.detail
FROM unnest(%(kinds)s::text[], %(subjects)s::text[], %(partitions)s::text[], %(details)s::text[])
    AS m (kind, subject, partition, detail)
ORDER BY 1, 2, 3, 4
ON CONFLICT DO NOTHING
RETURNING subject;

-- name: clear
-- Forget failures that are over; returns them. Uses notify_marks_pkey.
WITH over AS (
    SELECT m.kind, m.subject, m.partition, m.detail
    FROM flowstone.notify_marks AS m
    JOIN unnest(%(kinds)s::text[], %(subjects)s::text[], %(partitions)s::text[], %(details)s::text[])
        AS o (kind, subject, partition, detail) USING (kind, subject, partition, detail)
    ORDER BY 1, 2, 3, 4
    FOR UPDATE OF m
)
DELETE FROM flowstone.notify_marks AS m
USING over AS o
WHERE m.kind = o.kind AND m.subject = o.subject AND m.partition = o.partition AND m.detail = o.detail
RETURNING m.kind, m.subject, m.partition AS partition_key, m.detail, m.at;

-- name: targets
-- Assets and partitions of steps that completed, items of scatters apart. Uses steps_pkey.
SELECT s.id AS step_id, s.run_id, s.asset, s.partition AS partition_key
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND NOT s.is_item
ORDER BY s.id;

-- name: ended_runs
-- What a message says of runs that completed, those of items apart. Uses runs_pkey.
SELECT r.id AS run_id, r.kind, r.selection, r.assets, r.total_steps
FROM flowstone.runs AS r
WHERE r.id = ANY(%(runs)s::text[]) AND r.state = 'completed' AND r.releases_step IS NULL
ORDER BY r.id;

-- name: overdue
-- Runs that take longer than a rule allows and of which that was not reported yet, those of items apart. Uses runs_open.
SELECT r.id AS run_id, r.kind, r.selection, r.assets, r.total_steps
FROM flowstone.runs AS r
WHERE r.finished_at IS NULL AND r.releases_step IS NULL
    AND r.created_at <= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(seconds)s::double precision)
    AND (%(assets)s::text[] IS NULL OR r.assets && %(assets)s::text[])
    AND NOT EXISTS (
        SELECT FROM flowstone.notifications AS n WHERE n.rule = %(rule)s AND n.key = 'deadline:' || r.id
    )
ORDER BY r.created_at
LIMIT 1000;

-- name: lock
-- One process at a time decides what nobody else decides: that something is late, or takes too long.
SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext(%(name)s), 1203);

-- name: due
-- Rules that have something to send now, so that who has nothing to do writes nothing. Uses notifications_pending and
-- runs_pkey.
SELECT DISTINCT p.rule
FROM flowstone.notifications AS p
WHERE p.state = 'pending' AND p.rule = ANY(%(rules)s::text[]) AND p.claim_after <= pg_catalog.clock_timestamp()
    AND (
        p.due_at <= pg_catalog.clock_timestamp()
        OR EXISTS (SELECT FROM flowstone.runs AS r WHERE r.id = p.run_id AND r.finished_at IS NOT NULL)
    );

-- name: claim
-- Claim notifications that are due, for as long as a lease, by this process alone. What happens in their run from now on
-- goes into another one. Uses notifications_pending and runs_pkey.
UPDATE flowstone.notifications AS n
SET collects = false,
    attempts = n.attempts + 1,
    token = pg_catalog.nextval('flowstone.tokens'),
    claim_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(lease_seconds)s)
FROM (
    SELECT p.id
    FROM flowstone.notifications AS p
    WHERE p.state = 'pending' AND p.rule = ANY(%(rules)s::text[]) AND p.claim_after <= pg_catalog.clock_timestamp()
        AND (
            p.due_at <= pg_catalog.clock_timestamp()
            OR EXISTS (SELECT FROM flowstone.runs AS r WHERE r.id = p.run_id AND r.finished_at IS NOT NULL)
        )
    ORDER BY p.claim_after
    LIMIT %(limit)s
    FOR UPDATE OF p SKIP LOCKED
) AS t
WHERE n.id = t.id
RETURNING n.id, n.rule, n.key, n.run_id, n.state, n.counts, n.notices, n.created_at, n.attempts, n.error, n.sent_at, n.token;

-- name: renew
-- Prolong claims that are still held. Uses notifications_pkey.
UPDATE flowstone.notifications AS n
SET claim_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(lease_seconds)s)
FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[]) AS h (id, token)
WHERE n.id = h.id AND n.token = h.token AND n.state = 'pending';

-- name: pending
-- How many of some rules are not sent yet. Uses notifications_pending.
SELECT pg_catalog.count(*)
FROM flowstone.notifications
WHERE state = 'pending' AND rule = ANY(%(rules)s::text[]);

-- name: acknowledge
-- Note that one was sent, unless another process claimed it meanwhile. Uses notifications_pkey.
UPDATE flowstone.notifications
SET state = 'sent', sent_at = pg_catalog.clock_timestamp(), error = NULL
WHERE id = %(id)s AND token = %(token)s AND state = 'pending';

-- name: release
-- Note that one could not be sent, and when to try again. Uses notifications_pkey.
UPDATE flowstone.notifications
SET error = %(error)s,
    claim_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(retry_in_seconds)s)
WHERE id = %(id)s AND token = %(token)s AND state = 'pending';

-- name: give_up
-- Note that one cannot be sent. Uses notifications_pkey.
UPDATE flowstone.notifications SET error = %(error)s, state = 'given_up'
WHERE id = %(id)s AND token = %(token)s AND state = 'pending'
RETURNING id;

-- name: newest
-- Notifications, of one state or all, the newest first. Uses notifications_pkey.
SELECT id, rule, key, run_id, state, counts, notices, created_at, attempts, error, sent_at, token
FROM flowstone.notifications
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY id DESC
LIMIT %(limit)s;

-- name: get
-- A notification. Uses notifications_pkey.
SELECT id, rule, key, run_id, state, counts, notices, created_at, attempts, error, sent_at, token
FROM flowstone.notifications
WHERE id = %(id)s;

-- name: retry
-- Have notifications sent now that were given up or wait for another try; a try that is under way ends without effect.
-- Uses notifications_pkey.
UPDATE flowstone.notifications
SET state = 'pending', attempts = 0, token = 0, collects = false,
    claim_after = pg_catalog.clock_timestamp(), due_at = pg_catalog.clock_timestamp()
WHERE id = ANY(%(ids)s::bigint[]) AND state <> 'sent'
RETURNING id;

-- name: counts
-- How many there are in each state.
SELECT state, pg_catalog.count(*) AS number FROM flowstone.notifications GROUP BY state;

-- name: prune
-- Forget what was sent, or given up, long ago. Uses notifications_created.
DELETE FROM flowstone.notifications
WHERE created_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
    AND state <> 'pending';

-- name: newest_commits
-- When the newest version in use of each asset was committed. Uses current_outputs_pkey.
SELECT c.asset, pg_catalog.max(c.committed_at) AS at
FROM flowstone.current_outputs AS c
WHERE c.asset = ANY(%(assets)s::text[])
GROUP BY c.asset;

-- name: see
-- Note that assets without data are known from now on. Uses notify_marks_pkey.
INSERT INTO flowstone.notify_marks (kind, subject)
SELECT 'seen', a.asset FROM unnest(%(assets)s::text[]) AS a (asset) ORDER BY 2
ON CONFLICT DO NOTHING;

-- name: seen
-- Since when assets without data are known. Uses notify_marks_pkey.
SELECT m.subject AS asset, m.at
FROM flowstone.notify_marks AS m
WHERE m.kind = 'seen' AND m.subject = ANY(%(assets)s::text[]);

-- name: late
-- Assets of which it is noted that they are late. Uses notify_marks_pkey.
SELECT subject FROM flowstone.notify_marks WHERE kind = 'late' AND subject = ANY(%(assets)s::text[]);
