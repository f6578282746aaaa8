-- The run keys that an automation has used, the newest first; all, or one. Uses run_keys_newest or run_keys_pkey.
SELECT run_key, run_id, used_at
FROM flowstone.run_keys
WHERE kind = %(kind)s AND name = %(name)s AND forgotten_at IS NULL
    AND (%(run_key)s::text IS NULL OR run_key = %(run_key)s)
ORDER BY used_at DESC, run_key
LIMIT %(limit)s;
