-- Give attempts back as if they had not started; those that were to be cancelled end, and count. Uses steps_pkey.
WITH moved AS (
    UPDATE flowstone.steps AS s
    SET state = CASE WHEN s.state = 'cancelling' THEN 'cancelled'
            WHEN %(delay_seconds)s::double precision > 0 THEN 'scheduled' ELSE 'pending' END,
        attempt = s.attempt - (s.state = 'running')::integer,
        token = 0,
        reason = CASE WHEN s.state = 'cancelling' THEN 'cancelled while it was running'
            ELSE nullif(%(reason)s, '') END,
        scheduled_at = CASE WHEN %(delay_seconds)s::double precision > 0
            THEN pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(delay_seconds)s::double precision)
            END,
        finished_at = CASE WHEN s.state = 'cancelling' THEN pg_catalog.clock_timestamp() END
    FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[]) AS g (id, token)
    WHERE s.id = g.id AND s.token = g.token AND s.state IN ('running', 'cancelling')
    RETURNING s.id, s.run_id, s.state, s.job_id, s.limits, s.attempt, g.token, s.worker,
        s.started_at, s.finished_at
), tried AS (
    INSERT INTO flowstone.attempts (step_id, attempt, token, state, worker, started_at, finished_at)
    SELECT m.id, m.attempt, m.token, m.state, m.worker, m.started_at, m.finished_at
    FROM moved AS m
    WHERE m.state = 'cancelled'
)
SELECT m.id, m.run_id, m.state, m.job_id, m.limits FROM moved AS m;
