-- Record which runs a tick placed. Uses ticks_pkey.
UPDATE flowstone.ticks
SET run_ids = %(run_ids)s, state = %(state)s, reason = %(reason)s
WHERE id = %(id)s;
