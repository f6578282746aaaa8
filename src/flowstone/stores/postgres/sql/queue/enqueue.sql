-- Put a job on Oban's queue for each of these steps; returns the queues that have something to do now. Attempts are
-- counted by the step; the row says the same, for Oban's own tools, and carries the tags of its asset and its run.
-- Uses steps_pkey and runs_pkey.
WITH placed AS (
    INSERT INTO public.oban_jobs (
        id, state, queue, worker, priority, attempt, max_attempts, args, meta, tags, scheduled_at
    )
    OVERRIDING SYSTEM VALUE
    SELECT
        s.job_id,
        (CASE WHEN s.scheduled_at > pg_catalog.clock_timestamp() THEN 'scheduled' ELSE 'available' END)::public.oban_job_state,
        s.queue, %(worker)s, s.priority, least(s.attempt, 32766), least(greatest(s.max_attempts, s.attempt + 1), 32767),
        pg_catalog.jsonb_build_object('step', s.id, 'asset', s.asset, 'partition', s.partition, 'run', s.run_id),
        pg_catalog.jsonb_build_object('asset', s.asset, 'partition', s.partition, 'run', s.run_id),
        coalesce(s.tags, '{}') || r.tags,
        pg_catalog.timezone('UTC', coalesce(s.scheduled_at, pg_catalog.clock_timestamp()))
    FROM flowstone.steps AS s
    JOIN flowstone.runs AS r ON r.id = s.run_id
    WHERE s.id = ANY(%(steps)s::bigint[]) AND s.job_id IS NOT NULL
    ORDER BY s.id
    RETURNING queue, state
)
SELECT DISTINCT queue FROM placed WHERE state = 'available';
