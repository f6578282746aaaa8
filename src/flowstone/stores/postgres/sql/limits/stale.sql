-- Remove slots of steps that are not at work. Uses slots_pkey and steps_pkey.
DELETE FROM flowstone.slots AS t
USING flowstone.steps AS s
WHERE s.id = t.step_id AND s.state NOT IN ('running', 'cancelling')
RETURNING t.limit_name;
