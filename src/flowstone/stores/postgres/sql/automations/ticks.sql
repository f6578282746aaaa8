-- The newest ticks of an automation. Uses ticks_newest.
SELECT id, kind, name, tick_at, state, reason, error, run_ids, evaluated_at, took_seconds, by_hand, worker, repeats
FROM flowstone.ticks
WHERE kind = %(kind)s AND name = %(name)s
ORDER BY id DESC
LIMIT %(limit)s;
