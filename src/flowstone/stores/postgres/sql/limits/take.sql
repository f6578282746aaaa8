-- Take slots for steps that start. Uses slots_pkey.
INSERT INTO flowstone.slots (limit_name, step_id)
SELECT t.name, t.step_id FROM unnest(%(names)s::text[], %(steps)s::bigint[]) AS t (name, step_id)
ON CONFLICT DO NOTHING;
