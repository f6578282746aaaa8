-- One question a second for everybody who watches.

-- name: pulse
-- A text for each topic that changes when something about it does. Everything is read from the ends of indexes or from
-- tables that are small: runs_open, runs_ended, steps_pkey, steps_at_work, attempts_ended, ranges_open, steps_parked,
-- checkpoints_pkey, checkpoints_one_pending, automations, ticks_pkey, workers, queues, audit_pkey, logs_written. No sequence is read:
-- it moves before what takes a number from it can be seen.
WITH RECURSIVE open_runs AS MATERIALIZED (
    SELECT pg_catalog.count(*) AS number,
        pg_catalog.sum(pg_catalog.hashtextextended(
            r.id || ' ' || r.open_steps || ' ' || r.failures || ' ' || r.cancellations || ' ' || r.paused || ' ' || r.priority, 0
        )) AS digest
    FROM (
        SELECT * FROM flowstone.runs WHERE finished_at IS NULL ORDER BY created_at DESC LIMIT 500
    ) AS r
), ended_runs AS (
    SELECT pg_catalog.string_agg(e.id, ' ') AS ids
    FROM (
        SELECT id FROM flowstone.runs WHERE finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 3
    ) AS e
), queues AS (
    (SELECT a.queue FROM flowstone.attempts AS a WHERE a.queue IS NOT NULL ORDER BY a.queue LIMIT 1)
    UNION ALL
    SELECT (
        SELECT a.queue FROM flowstone.attempts AS a WHERE a.queue > q.queue ORDER BY a.queue LIMIT 1
    )
    FROM queues AS q
    WHERE q.queue IS NOT NULL
), ended AS (
    SELECT pg_catalog.string_agg(q.queue || '=' || pg_catalog.date_part('epoch', (
        SELECT a.finished_at FROM flowstone.attempts AS a WHERE a.queue = q.queue ORDER BY a.finished_at DESC LIMIT 1
    ))::text, ' ') AS ends
    FROM queues AS q
    WHERE q.queue IS NOT NULL
), at_work AS (
    SELECT pg_catalog.count(*) AS number, pg_catalog.max(s.token) AS token,
        pg_catalog.count(*) FILTER (WHERE s.state = 'cancelling') AS cancelling
    FROM flowstone.steps AS s
    WHERE s.state IN ('running', 'cancelling')
), unstarted AS (
    SELECT pg_catalog.count(*) AS number, pg_catalog.sum(g.total - g.begun)::bigint AS partitions
    FROM flowstone.ranges AS g
    WHERE g.is_open
), parked AS (
    SELECT pg_catalog.count(*) AS number
    FROM (SELECT FROM flowstone.steps WHERE parked_for IS NOT NULL LIMIT 1000) AS p
)
SELECT
    pg_catalog.concat_ws(' ', o.number, o.digest, e.ids, u.partitions) AS runs,
    pg_catalog.concat_ws(' ', (SELECT pg_catalog.max(id) FROM flowstone.steps), w.number, w.token, w.cancelling, d.ends,
        o.digest, u.partitions, e.ids) AS steps,
    pg_catalog.concat_ws(' ', (
        SELECT pg_catalog.string_agg(q.name || q.paused || coalesce(q.node_limit::text, ''), ' ' ORDER BY q.name)
        FROM flowstone.queues AS q
    ), u.number, p.number) AS queues,
    pg_catalog.concat_ws(' ', (SELECT pg_catalog.max(id) FROM flowstone.checkpoints), (
        SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*), pg_catalog.sum(c.step_id))
        FROM flowstone.checkpoints AS c
        WHERE c.state = 'pending'
    )) AS approvals,
    pg_catalog.concat_ws(' ', (SELECT pg_catalog.max(id) FROM flowstone.ticks), (
        SELECT pg_catalog.sum(pg_catalog.hashtextextended(
            pg_catalog.concat_ws(' ', a.kind, a.name, a.paused, a.cursor, a.last_tick_at, a.failures, a.requested), 0
        ))
        FROM flowstone.automations AS a
    )) AS automations,
    (
        SELECT pg_catalog.concat_ws(' ', pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended(
            pg_catalog.concat_ws(' ', w.id, w.lost_at, w.lost_at IS NULL
                AND w.beat_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)), 0
        )))
        FROM flowstone.workers AS w
    ) AS workers,
    coalesce((SELECT pg_catalog.max(id) FROM flowstone.audit)::text, '') AS audit,
    coalesce((SELECT pg_catalog.max(written_at) FROM flowstone.logs)::text, '') AS logs
FROM open_runs AS o, ended_runs AS e, ended AS d, at_work AS w, unstarted AS u, parked AS p;

-- name: tables
-- The tables of the project with their sizes and what the last analysis counted. Reads the catalogs alone.
SELECT c.relname::text AS name, c.reltuples::bigint AS rows,
    pg_catalog.pg_table_size(c.oid) AS size_bytes, pg_catalog.pg_indexes_size(c.oid) AS index_bytes
FROM pg_catalog.pg_class AS c
WHERE c.relkind = 'r' AND (
    c.relnamespace = pg_catalog.to_regnamespace('flowstone')::oid
    OR c.oid = pg_catalog.to_regclass('public.oban_jobs')::oid
)
ORDER BY pg_catalog.pg_table_size(c.oid) + pg_catalog.pg_indexes_size(c.oid) DESC, c.relname
LIMIT 200;
