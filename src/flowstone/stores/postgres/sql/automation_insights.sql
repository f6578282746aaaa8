-- What people who watch ask about automations, checks and approvals: bounded for each of many at once.

-- name: ticks
-- The newest ticks of each of some automations. Uses ticks_newest.
SELECT t.id, t.kind, t.name, t.tick_at, t.state, t.reason, t.error, t.run_ids, t.evaluated_at, t.took_seconds, t.by_hand,
    t.worker, t.repeats
FROM unnest(%(kinds)s::text[], %(names)s::text[]) AS a (kind, name)
CROSS JOIN LATERAL (
    SELECT *
    FROM flowstone.ticks AS o
    WHERE o.kind = a.kind AND o.name = a.name
    ORDER BY o.id DESC
    LIMIT %(each)s
) AS t
ORDER BY t.id DESC;

-- name: recent_checks
-- The newest results of the checks of each of some assets. Uses check_results_of_asset.
SELECT c.check_name AS "check", c.asset, c.partition AS partition_key, c.step_id, c.attempt, c.token, c.passed, c.severity,
    c.blocking, c.description, c.error, c.metadata, c.started_at, c.took_seconds
FROM unnest(%(assets)s::text[]) AS a (asset)
CROSS JOIN LATERAL (
    SELECT *
    FROM flowstone.check_results AS r
    -- equal, said so that the order is that of this index only: by the primary key, rare assets are far away
    WHERE r.asset >= a.asset AND r.asset <= a.asset
    ORDER BY r.asset, r.id DESC
    LIMIT %(each)s
) AS c
ORDER BY c.id DESC;

-- name: failing_checks
-- Checks whose newest result of a partition is a failure, the newest of each of some assets: only the last failures are
-- read, and of each whether a later result is there. Uses check_results_failed and check_results_latest.
SELECT c.check_name AS "check", c.asset, c.partition AS partition_key, c.step_id, c.attempt, c.token, c.passed, c.severity,
    c.blocking, c.description, c.error, c.metadata, c.started_at, c.took_seconds
FROM unnest(%(assets)s::text[]) AS a (asset)
CROSS JOIN LATERAL (
    SELECT *
    FROM flowstone.check_results AS r
    WHERE r.asset = a.asset AND NOT r.passed
    ORDER BY r.id DESC
    LIMIT %(each)s
) AS c
WHERE NOT EXISTS (
    SELECT FROM flowstone.check_results AS n
    WHERE n.asset = c.asset AND n.partition = c.partition AND n.check_name = c.check_name AND n.id > c.id
)
ORDER BY c.id DESC;

-- name: decided
-- Requests for approval that are over, the newest first, a page at a time. Uses checkpoints_pkey.
SELECT id, step_id, run_id, asset, partition AS partition_key, gate, attempt, message, data, resume, state, on_timeout,
    created_at,
    expires_at, decided_at, decided_by, comment
FROM flowstone.checkpoints
WHERE state <> 'pending' AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s;

-- name: pending
-- How many requests wait for a decision. Uses checkpoints_due.
SELECT pg_catalog.count(*) FROM (
    SELECT FROM flowstone.checkpoints WHERE state = 'pending' LIMIT %(limit)s
) AS waiting;
