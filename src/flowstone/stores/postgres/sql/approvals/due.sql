-- Requests whose time is over. Uses checkpoints_due.
SELECT id
FROM flowstone.checkpoints
WHERE state = 'pending' AND expires_at <= pg_catalog.clock_timestamp()
ORDER BY expires_at
LIMIT %(limit)s;
