-- Move jobs to the state that follows from that of their steps. Uses oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET state = e.state::public.oban_job_state,
    attempt = CASE WHEN e.state IN ('scheduled', 'available') THEN greatest(0, j.attempt - 1) ELSE j.attempt END,
    scheduled_at = CASE WHEN e.delay_seconds IS NULL THEN j.scheduled_at
        ELSE pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
            + pg_catalog.make_interval(secs => e.delay_seconds) END,
    completed_at = CASE WHEN e.state = 'completed' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
    discarded_at = CASE WHEN e.state = 'discarded' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
    cancelled_at = CASE WHEN e.state = 'cancelled' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END
FROM pg_catalog.jsonb_to_recordset(%(jobs)s) AS e (id bigint, state text, delay_seconds double precision)
WHERE j.id = e.id AND j.state NOT IN ('completed', 'discarded', 'cancelled');
