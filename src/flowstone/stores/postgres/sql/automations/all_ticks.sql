-- The newest ticks of all automations. Uses ticks_pkey.
SELECT id, kind, name, tick_at, state, reason, error, run_ids, evaluated_at, took_seconds, by_hand, worker, repeats
FROM flowstone.ticks
ORDER BY id DESC
LIMIT %(limit)s;
