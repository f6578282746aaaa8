-- When the step in use of some targets was started that computed it, given as [[asset, partition], ...].
-- Uses current_outputs_pkey, steps_pkey.
SELECT t.position, s.started_at
FROM pg_catalog.jsonb_array_elements(%(targets)s::jsonb) WITH ORDINALITY AS t (target, position)
JOIN flowstone.current_outputs AS c ON c.asset = t.target ->> 0 AND c.partition = t.target ->> 1
JOIN flowstone.steps AS s ON s.id = c.step_id
WHERE s.started_at IS NOT NULL;
