-- Which of some targets, given as [[run, asset, partition], ...], were skipped: by the run itself, else the latest time
-- that they had a result or were skipped. Uses steps_of_target.
SELECT t.position
FROM pg_catalog.jsonb_array_elements(%(requested)s::jsonb) WITH ORDINALITY AS t (target, position)
LEFT JOIN LATERAL (
    SELECT o.state
    FROM flowstone.steps AS o
    WHERE o.asset = t.target ->> 1 AND o.partition = t.target ->> 2 AND o.run_id = t.target ->> 0
        AND o.state IN ('completed', 'reused', 'skipped')
    LIMIT 1
) AS own ON true
LEFT JOIN LATERAL (
    SELECT n.state
    FROM flowstone.steps AS n
    WHERE n.asset = t.target ->> 1 AND n.partition = t.target ->> 2 AND n.state IN ('completed', 'skipped')
    ORDER BY n.id DESC
    LIMIT 1
) AS newest ON own.state IS NULL
WHERE coalesce(own.state, newest.state) = 'skipped';
