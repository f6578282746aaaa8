-- Committed steps of some targets, given as [[asset, partition], ...]: JSON is several times faster to write and to
-- read than two arrays of text. Uses current_outputs_pkey.
SELECT t.position, c.step_id
FROM pg_catalog.jsonb_array_elements(%(targets)s::jsonb) WITH ORDINALITY AS t (target, position)
JOIN flowstone.current_outputs AS c ON c.asset = t.target ->> 0 AND c.partition = t.target ->> 1;
