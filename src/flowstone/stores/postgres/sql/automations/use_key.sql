-- Use a run key; returns nothing when it was used before. Uses run_keys_pkey.
INSERT INTO flowstone.run_keys (kind, name, run_key, run_id)
VALUES (%(kind)s, %(name)s, %(run_key)s, %(run_id)s)
ON CONFLICT (kind, name, run_key) DO NOTHING
RETURNING run_key;
