-- Runs as lists have them. Nothing here counts steps of runs that are over, or of those that are not: counts are in the
-- runs, and what runs at this moment is found by who works on it.

-- part: record
-- Runs, as lists have them.
SELECT r.id, r.kind, r.selection, r.executor, r.state, r.priority, r.max_concurrency, r.created_at, r.finished_at,
    r.paused, r.retry_of, r.parent, r.details, r.assets, r.requested_by, r.requested_via,
    r.first_partition, r.last_partition, r.partitions,
    r.counts, r.total_steps, r.open_steps, r.failures, r.cancellations,
    r.state = 'running' AND NOT r.durable AND NOT EXISTS (
        SELECT FROM flowstone.workers AS w
        WHERE w.id = r.driver AND w.lost_at IS NULL
            AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
    ) AS process_lost
FROM flowstone.runs AS r

-- part: matching
-- The condition of a filter.
WHERE (%(states)s::text[] IS NULL OR r.state = ANY(%(states)s))
    AND (NOT %(only_paused)s::boolean OR r.paused OR r.state <> 'running')
    AND (%(not_states)s::text[] IS NULL OR r.state <> ALL(%(not_states)s))
    AND (NOT %(not_paused)s::boolean OR NOT r.paused OR r.state <> 'running')
    AND (%(kinds)s::text[] IS NULL OR r.kind = ANY(%(kinds)s))
    AND (%(not_kinds)s::text[] IS NULL OR r.kind <> ALL(%(not_kinds)s))
    AND (%(assets)s::text[] IS NULL OR r.assets && %(assets)s)
    AND (%(not_assets)s::text[] IS NULL OR r.assets IS NULL OR NOT r.assets && %(not_assets)s)
    AND (%(tags)s::text[] IS NULL OR r.tags && %(tags)s)
    AND (%(not_tags)s::text[] IS NULL OR r.tags IS NULL OR NOT r.tags && %(not_tags)s)
    AND (%(automations)s::text[] IS NULL OR r.requested_via = 'automation' AND r.requested_by = ANY(%(automations)s))
    AND (NOT %(any_automation)s::boolean OR r.requested_via = 'automation')
    AND (%(not_automations)s::text[] IS NULL
        OR r.requested_via IS NULL OR r.requested_via <> 'automation' OR r.requested_by <> ALL(%(not_automations)s))
    AND (NOT %(no_automation)s::boolean OR r.requested_via IS NULL OR r.requested_via <> 'automation')
    AND (%(people)s::text[] IS NULL OR r.requested_via <> 'automation' AND r.requested_by = ANY(%(people)s))
    AND (NOT %(any_person)s::boolean OR r.requested_via <> 'automation')
    AND (%(not_people)s::text[] IS NULL
        OR r.requested_via IS NULL OR r.requested_via = 'automation' OR r.requested_by <> ALL(%(not_people)s))
    AND (NOT %(no_person)s::boolean OR r.requested_via IS NULL OR r.requested_via = 'automation')
    AND (%(since)s::timestamptz IS NULL OR r.created_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR r.created_at < %(until)s)
    AND (%(with_items)s::boolean OR %(items_of)s::text IS NULL AND r.parent IS NULL OR r.parent = %(items_of)s)

-- name: page
-- The newest runs that match a filter, behind a place in the list. Each filter has an index in the order of the list;
-- filters by "not" go through the list itself. Uses runs_newest, runs_of_state, runs_of_kind, runs_of_person,
-- runs_of_asset, runs_tags, runs_of_parent.
-- here: runs/record
-- here: runs/matching
    AND (%(before_at)s::timestamptz IS NULL OR (r.created_at, r.id) < (%(before_at)s, %(before_id)s))
ORDER BY r.created_at DESC, r.id DESC
LIMIT %(limit)s;

-- name: count
-- How many runs match a filter, counted up to a limit. Uses the indexes of runs/page.
SELECT pg_catalog.count(*)
FROM (
    SELECT
    FROM flowstone.runs AS r
-- here: runs/matching
    LIMIT %(limit)s
) AS matching;

-- name: named
-- Some runs by their ids. Uses runs_pkey.
-- here: runs/record
WHERE r.id = ANY(%(runs)s::text[]);

-- name: at_work
-- Steps of some runs that are at work, own and joined: read from all that are at work, which are few.
-- Uses steps_at_work and run_joins_pkey.
WITH work AS MATERIALIZED (
    SELECT s.id, s.run_id, s.state FROM flowstone.steps AS s WHERE s.state IN ('running', 'cancelling')
)
SELECT a.run_id, a.state, pg_catalog.count(*) AS steps
FROM (
    SELECT w.run_id, w.state FROM work AS w
    UNION ALL
    SELECT j.run_id, w.state FROM work AS w JOIN flowstone.run_joins AS j ON j.step_id = w.id
) AS a
WHERE a.run_id = ANY(%(runs)s::text[])
GROUP BY a.run_id, a.state;

-- name: counts
-- Number of steps of runs in each state, own and joined; partitions that nobody has begun count as pending.
-- Uses steps_of_run, run_joins_of_run and ranges_of_run.
SELECT c.run_id, c.state, pg_catalog.sum(c.steps)::bigint AS steps
FROM (
    SELECT run_id, state, pg_catalog.count(*) AS steps
    FROM flowstone.steps
    WHERE run_id = ANY(%(runs)s::text[])
    GROUP BY run_id, state
    UNION ALL
    SELECT j.run_id, s.state, pg_catalog.count(*)
    FROM flowstone.run_joins AS j
    JOIN flowstone.steps AS s ON s.id = j.step_id
    WHERE j.run_id = ANY(%(runs)s::text[])
    GROUP BY j.run_id, s.state
    UNION ALL
    SELECT g.run_id, 'pending', pg_catalog.sum(g.total - g.begun)
    FROM flowstone.ranges AS g
    WHERE g.run_id = ANY(%(runs)s::text[]) AND g.is_open
    GROUP BY g.run_id
) AS c
GROUP BY c.run_id, c.state;
