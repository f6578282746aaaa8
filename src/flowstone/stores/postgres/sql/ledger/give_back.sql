-- Give attempts back as if they had not started. Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = CASE WHEN s.state = 'cancelling' THEN 'cancelled'
        WHEN %(delay_seconds)s::double precision > 0 THEN 'scheduled' ELSE 'pending' END,
    attempt = s.attempt - 1,
    token = 0,
    reason = nullif(%(reason)s, ''),
    scheduled_at = CASE WHEN %(delay_seconds)s::double precision > 0
        THEN pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(delay_seconds)s::double precision)
        END,
    finished_at = CASE WHEN s.state = 'cancelling' THEN pg_catalog.clock_timestamp() END
FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[]) AS g (id, token)
WHERE s.id = g.id AND s.token = g.token AND s.state IN ('running', 'cancelling')
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits IS NOT NULL AS is_limited;
