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
