-- Put a job on Oban's queue for the end of the time of each of these requests. Steps that a process drives itself need
-- none: it watches the time. Uses checkpoints_pkey.
WITH chosen AS (
    SELECT c.id, c.expires_at, pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) AS job_id
    FROM flowstone.checkpoints AS c
    JOIN flowstone.runs AS r ON r.id = c.run_id AND r.durable
    WHERE c.id = ANY(%(ids)s::bigint[])
), placed AS (
    INSERT INTO public.oban_jobs (id, state, queue, worker, priority, max_attempts, args, scheduled_at)
    OVERRIDING SYSTEM VALUE
    SELECT c.job_id, 'scheduled', %(queue)s, %(worker)s, 0, 32767, pg_catalog.jsonb_build_object('approval', c.id),
        pg_catalog.timezone('UTC', c.expires_at)
    FROM chosen AS c
)
UPDATE flowstone.checkpoints AS c SET job_id = o.job_id FROM chosen AS o WHERE c.id = o.id;
