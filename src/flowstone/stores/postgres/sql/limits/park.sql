-- Give attempts back that a limit does not let start: they wait for a slot, or for a time. Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = CASE WHEN p.delay_seconds IS NULL THEN 'pending' ELSE 'scheduled' END,
    attempt = s.attempt - 1,
    token = 0,
    parked_for = CASE WHEN p.delay_seconds IS NULL THEN p.name END,
    reason = p.reason,
    scheduled_at = CASE WHEN p.delay_seconds IS NULL THEN s.scheduled_at
        ELSE pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => p.delay_seconds) END
FROM unnest(%(steps)s::bigint[], %(names)s::text[], %(reasons)s::text[], %(delays)s::double precision[])
    AS p (step_id, name, reason, delay_seconds)
WHERE s.id = p.step_id;
