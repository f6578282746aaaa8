-- Note when to try again to announce a state of a request. Uses checkpoints_pkey.
UPDATE flowstone.checkpoints
SET announce_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(retry_in_seconds)s)
WHERE id = %(id)s AND state = %(state)s;
