-- Let the jobs of parked steps rest; suspended is a state that Oban's stager leaves alone. Uses oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET state = (CASE WHEN p.delay_seconds IS NULL THEN 'suspended' ELSE 'scheduled' END)::public.oban_job_state,
    attempt = greatest(0, j.attempt - 1),
    scheduled_at = CASE WHEN p.delay_seconds IS NULL THEN j.scheduled_at
        ELSE pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
            + pg_catalog.make_interval(secs => p.delay_seconds) END
FROM unnest(%(jobs)s::bigint[], %(delays)s::double precision[]) AS p (job_id, delay_seconds)
WHERE j.id = p.job_id;
