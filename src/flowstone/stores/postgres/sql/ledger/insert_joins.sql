-- Record that a run waits for steps of other runs. Uses run_joins_pkey.
INSERT INTO flowstone.run_joins (step_id, run_id)
SELECT j.step_id, %(run_id)s FROM unnest(%(steps)s::bigint[]) AS j (step_id)
ON CONFLICT DO NOTHING
RETURNING step_id;
