-- Slots taken of some limits, and the time; asked after locking them, so that it sees what was committed before.
-- Uses slots_pkey.
SELECT n.name, pg_catalog.count(s.step_id) AS taken,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) AS now
FROM unnest(%(names)s::text[]) AS n (name)
LEFT JOIN flowstone.slots AS s ON s.limit_name = n.name
GROUP BY n.name;
