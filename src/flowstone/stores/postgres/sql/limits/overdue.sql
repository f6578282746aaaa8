-- Limits with free slots and steps that wait for one, and how many may try. What was woken may be unable to start: its
-- queue or run was paused, no worker serves its queue, or it was cancelled. Uses steps_parked and slots_pkey.
SELECT p.name, least(p.waiting, p.maximum - p.taken) AS number
FROM (
    SELECT s.parked_for AS name, pg_catalog.count(*) AS waiting,
        -- breakers are texts; see breakers/idle
        pg_catalog.max(CASE WHEN pg_catalog.jsonb_typeof(s.limits -> s.parked_for) = 'number'
            THEN (s.limits ->> s.parked_for)::bigint END) AS maximum,
        (SELECT pg_catalog.count(*) FROM flowstone.slots AS t WHERE t.limit_name = s.parked_for) AS taken
    FROM flowstone.steps AS s
    WHERE s.parked_for IS NOT NULL AND s.state = 'pending'
    GROUP BY s.parked_for
) AS p
WHERE p.taken < p.maximum;
