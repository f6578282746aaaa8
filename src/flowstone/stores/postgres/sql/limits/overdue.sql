-- Limits with free slots and steps that wait for one: only a lost wake-up leaves such behind. Slots of steps that are
-- not at work are counted as free. Uses steps_parked and slots_pkey.
SELECT s.parked_for, pg_catalog.count(*)
FROM flowstone.steps AS s
WHERE s.parked_for IS NOT NULL AND s.state = 'pending'
    AND NOT EXISTS (SELECT FROM flowstone.slots AS t WHERE t.limit_name = s.parked_for)
GROUP BY s.parked_for;
