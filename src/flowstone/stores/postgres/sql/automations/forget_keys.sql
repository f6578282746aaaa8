-- Let run keys trigger again; the rows stay, so that their next runs get ids of their own. Uses run_keys_pkey.
UPDATE flowstone.run_keys
SET forgotten_at = pg_catalog.clock_timestamp()
WHERE kind = %(kind)s AND name = %(name)s AND run_key = ANY(%(run_keys)s::text[]) AND forgotten_at IS NULL
RETURNING run_key;
