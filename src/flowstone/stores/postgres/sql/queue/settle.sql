-- Move jobs to the state that follows from that of their steps, and say in Oban's form what failed. What others
-- cancelled with Oban's tools stays so, unless the step came to its end first: then the row says that.
-- `errors` is a list in Oban for Python and an array in Elixir's tables; || appends to both. Uses oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET state = e.state::public.oban_job_state,
    attempt = CASE WHEN e.releases THEN greatest(0, j.attempt - 1) ELSE j.attempt END,
    scheduled_at = CASE WHEN e.delay_seconds IS NULL THEN j.scheduled_at
        ELSE pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
            + pg_catalog.make_interval(secs => e.delay_seconds) END,
    errors = CASE WHEN NOT e.failed THEN j.errors ELSE j.errors || (
        SELECT pg_catalog.jsonb_build_object(
            'attempt', s.attempt,
            'at', pg_catalog.to_char(
                pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
            ),
            'error', pg_catalog.left(coalesce(s.error, s.reason, ''), 5000)
        )
        FROM flowstone.steps AS s
        WHERE s.id = e.step_id
    ) END,
    completed_at = CASE WHEN e.state = 'completed' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
    discarded_at = CASE WHEN e.state = 'discarded' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END,
    cancelled_at = CASE WHEN e.state = 'cancelled' THEN pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) END
FROM pg_catalog.jsonb_to_recordset(%(jobs)s)
    AS e (id bigint, step_id bigint, state text, delay_seconds double precision, releases boolean, failed boolean)
WHERE j.id = e.id AND (j.state <> 'cancelled' OR e.state IN ('completed', 'discarded', 'cancelled'));
