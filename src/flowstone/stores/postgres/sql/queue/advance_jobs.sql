-- Let steps that wait for inputs look in a second: whoever joined them may make these. Uses steps_pkey and oban_jobs_pkey.
WITH sooner AS (
    UPDATE public.oban_jobs AS j
    SET scheduled_at = pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) + interval '1 second'
    WHERE j.id = ANY(%(ids)s::bigint[]) AND j.state = 'scheduled'
        AND j.scheduled_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) + interval '1 second'
    RETURNING j.id, j.scheduled_at
)
UPDATE flowstone.steps AS s
SET scheduled_at = pg_catalog.timezone('UTC', n.scheduled_at)
FROM sooner AS n
WHERE s.job_id = n.id AND s.id = ANY(%(steps)s::bigint[]) AND s.state = 'waiting';
