-- Breakers for which steps rest although one may be tried, or all may start, and how many are to try: the step that
-- was to try may be cancelled or paused. Uses steps_parked, breakers_pkey and slots_pkey.
SELECT p.name, CASE WHEN b.open_until IS NULL THEN p.waiting ELSE 1 END AS number
FROM (
    SELECT s.parked_for AS name, pg_catalog.count(*) AS waiting
    FROM flowstone.steps AS s
    WHERE s.parked_for IS NOT NULL AND s.state = 'pending'
        AND pg_catalog.jsonb_typeof(s.limits -> s.parked_for) = 'string'
    GROUP BY s.parked_for
) AS p
LEFT JOIN flowstone.breakers AS b ON b.name = p.name
WHERE b.open_until IS NULL
    OR (
        b.open_until <= pg_catalog.clock_timestamp()
        AND NOT EXISTS (SELECT FROM flowstone.slots AS t WHERE t.limit_name = p.name)
    );
