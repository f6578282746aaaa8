-- Put jobs back that came too early for their request; others of these have nothing to do any more.
-- Uses oban_jobs_pkey and checkpoints_pkey.
WITH early AS (
    UPDATE public.oban_jobs AS j
    SET state = 'scheduled', attempt = 0, scheduled_at = pg_catalog.timezone('UTC', c.expires_at)
    FROM flowstone.checkpoints AS c
    WHERE j.id = ANY(%(jobs)s::bigint[]) AND c.job_id = j.id AND c.id::text = j.args ->> 'approval'
        AND c.state = 'pending'
    RETURNING j.id
)
DELETE FROM public.oban_jobs AS j
WHERE j.id = ANY(%(jobs)s::bigint[])
    AND NOT EXISTS (
        SELECT FROM flowstone.checkpoints AS c
        WHERE c.job_id = j.id AND c.id::text = j.args ->> 'approval' AND c.state = 'pending'
    );
