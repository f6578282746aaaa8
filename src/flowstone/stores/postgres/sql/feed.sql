-- Attempts that are over, for programs that report them elsewhere; see migrations/0025_attempt_feed.sql.

-- name: subscribe
-- Have attempts noted for a feed from now on. Uses feeds_pkey.
INSERT INTO flowstone.feeds (name) VALUES (%(feed)s)
ON CONFLICT (name) DO UPDATE SET polled_at = pg_catalog.clock_timestamp();

-- name: has_trigger
-- Whether ended attempts are noted at all.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_trigger AS t
    WHERE t.tgrelid = pg_catalog.to_regclass('flowstone.attempts') AND t.tgname = 'attempts_feed'
) AS has_trigger;

-- name: create_trigger
-- Note ended attempts; writers wait for it for a moment.
CREATE OR REPLACE TRIGGER attempts_feed AFTER INSERT ON flowstone.attempts
REFERENCING NEW TABLE AS ended FOR EACH STATEMENT EXECUTE FUNCTION flowstone.feed_attempts();

-- name: drop_trigger
-- Note ended attempts no more; when no feed is left.
DROP TRIGGER IF EXISTS attempts_feed ON flowstone.attempts;

-- name: unsubscribe
-- Forget a feed with what was noted for it; returns how many are left.
WITH gone AS (
    DELETE FROM flowstone.feeds WHERE name = %(feed)s
), forgotten AS (
    DELETE FROM flowstone.feed_entries WHERE feed = %(feed)s
)
SELECT pg_catalog.count(*) AS feeds FROM flowstone.feeds WHERE name <> %(feed)s;

-- name: polled
-- Note that a feed is asked for. Uses feeds_pkey.
UPDATE flowstone.feeds SET polled_at = pg_catalog.clock_timestamp()
WHERE name = %(feed)s AND polled_at < pg_catalog.clock_timestamp() - interval '1 hour';

-- name: claim
-- Claim entries for a while: whoever dies with them leaves them to others when it is over. Uses feed_entries_due.
WITH due AS (
    SELECT id FROM flowstone.feed_entries
    WHERE feed = %(feed)s AND claim_after <= pg_catalog.clock_timestamp()
    ORDER BY claim_after, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE flowstone.feed_entries AS e
    SET claim_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(lease_seconds)s),
        tries = e.tries + 1
    FROM due AS d
    WHERE e.id = d.id
    RETURNING e.id, e.step_id, e.attempt, e.tries
)
SELECT id, step_id, attempt, tries FROM claimed ORDER BY id;

-- name: steps
-- Steps whose attempts are reported. Uses steps_pkey.
-- here: catalog/record
WHERE s.id = ANY(%(steps)s::bigint[]);

-- name: attempts
-- Attempts of some steps with the kinds of their runs, in order. Uses attempts_pkey, steps_pkey and runs_pkey.
SELECT a.step_id, r.kind, a.attempt, a.state, a.started_at, a.finished_at, a.worker, a.error, a.error_type, a.retry_at,
    a.read
FROM flowstone.attempts AS a
JOIN flowstone.steps AS s ON s.id = a.step_id
JOIN flowstone.runs AS r ON r.id = s.run_id
WHERE a.step_id = ANY(%(steps)s::bigint[])
ORDER BY a.step_id, a.attempt, a.token;

-- name: targets
-- What steps are of. Uses steps_pkey.
SELECT id, asset, partition AS partition_key FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);

-- name: stored
-- Where the outputs of steps lie. Uses steps_pkey.
SELECT id, output AS stored FROM flowstone.steps WHERE id = ANY(%(steps)s::bigint[]);

-- name: acknowledge
-- Take off what was reported. Uses feed_entries_pkey.
DELETE FROM flowstone.feed_entries WHERE id = ANY(%(ids)s::bigint[]);

-- name: release
-- Have entries claimed again later. Uses feed_entries_pkey.
UPDATE flowstone.feed_entries
SET claim_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(seconds)s)
WHERE id = ANY(%(ids)s::bigint[]);

-- name: waiting
-- How many entries wait, counted to a limit. Uses feed_entries_due.
SELECT pg_catalog.count(*) AS waiting
FROM (SELECT FROM flowstone.feed_entries WHERE feed = %(feed)s LIMIT %(limit)s) AS w;
