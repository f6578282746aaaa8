-- Whether anything is recorded under an earlier name of an asset, and whether it is in use: a step that is not over, a
-- range that nobody has begun, a living worker that knows the old name. Uses steps_of_target, ranges_open, workers_pkey.
SELECT
    EXISTS (SELECT FROM flowstone.steps AS s WHERE s.asset = %(old)s)
        OR EXISTS (SELECT FROM flowstone.automations AS a WHERE a.kind = 'condition' AND a.name = %(old)s) AS is_there,
    EXISTS (SELECT FROM flowstone.steps AS s WHERE s.asset = %(old)s AND s.finished_at IS NULL)
        OR EXISTS (SELECT FROM flowstone.ranges AS g WHERE g.asset = %(old)s AND g.is_open)
        OR EXISTS (
            SELECT FROM flowstone.workers AS w
            WHERE w.kind = 'node' AND w.lost_at IS NULL AND w.assets -> %(old)s::text IS NOT NULL
                AND w.beat_at >= pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => w.lease_seconds)
        ) AS is_in_use;
