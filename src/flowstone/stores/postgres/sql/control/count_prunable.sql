-- What pruning would delete: numbers of steps, runs and values, and the bytes of the values where these are known. The
-- conditions are those of control/prunable and control/prune_runs; a step that is kept keeps what it was made from, all
-- the way up. Uses steps_of_run, current_outputs_pkey, lineage_readers, steps_reused, run_joins_of_run.
WITH RECURSIVE old AS MATERIALIZED (
    SELECT r.id, r.releases_step
    FROM flowstone.runs AS r
    WHERE r.state <> 'running'
        AND r.finished_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
), candidates AS MATERIALIZED (
    SELECT s.id, CASE WHEN s.output_step = s.id THEN s.output END AS output, old.releases_step
    FROM old
    JOIN flowstone.steps AS s ON s.run_id = old.id
    WHERE s.state IN ('completed', 'reused', 'failed', 'upstream_failed', 'skipped', 'cancelled')
        AND NOT EXISTS (
            SELECT FROM flowstone.current_outputs AS c
            WHERE c.asset = s.asset AND c.partition = s.partition AND c.step_id = s.id
        )
), needed AS (
    SELECT c.id
    FROM candidates AS c
    JOIN flowstone.lineage AS l ON l.upstream_step_id = c.id
    WHERE NOT EXISTS (SELECT FROM candidates AS o WHERE o.id = l.step_id)
    UNION
    SELECT c.id
    FROM candidates AS c
    JOIN flowstone.steps AS u ON u.output_step = c.id AND u.state = 'reused'
    WHERE NOT EXISTS (SELECT FROM candidates AS o WHERE o.id = u.id)
    UNION
    SELECT c.id
    FROM candidates AS c
    JOIN flowstone.steps AS p ON p.id = c.releases_step
    WHERE NOT EXISTS (SELECT FROM candidates AS o WHERE o.id = p.id)
), kept AS (
    SELECT n.id FROM needed AS n
    UNION
    SELECT c.id
    FROM kept AS k
    CROSS JOIN LATERAL (
        SELECT l.upstream_step_id AS id FROM flowstone.lineage AS l WHERE l.step_id = k.id
        UNION ALL
        SELECT s.output_step FROM flowstone.steps AS s WHERE s.id = k.id AND s.state = 'reused'
        UNION ALL
        SELECT i.id
        FROM flowstone.scatters AS f
        JOIN flowstone.steps AS i ON i.run_id = f.run_id
        WHERE f.step_id = k.id
    ) AS above
    JOIN candidates AS c ON c.id = above.id
), gone AS MATERIALIZED (
    SELECT c.id, c.output
    FROM candidates AS c
    WHERE NOT EXISTS (SELECT FROM kept AS k WHERE k.id = c.id)
)
SELECT
    (SELECT pg_catalog.count(*) FROM gone) AS steps,
    (
        SELECT pg_catalog.count(*)
        FROM old
        WHERE NOT EXISTS (
                SELECT FROM flowstone.steps AS s
                WHERE s.run_id = old.id AND NOT EXISTS (SELECT FROM gone WHERE gone.id = s.id)
            )
            AND NOT EXISTS (
                SELECT FROM flowstone.run_joins AS j
                WHERE j.run_id = old.id AND NOT EXISTS (SELECT FROM gone WHERE gone.id = j.step_id)
            )
    ) AS runs,
    (SELECT pg_catalog.count(gone.output) FROM gone) AS "values",
    (SELECT coalesce(pg_catalog.sum((gone.output ->> 'size_bytes')::bigint), 0)::bigint FROM gone) AS size_bytes;
