-- Put jobs that a worker took, and that started nothing, back to what their steps say: another program moved them, such as
-- another Oban's rescue or a person with Oban's tools. A job that no step names any more is closed.
-- Uses oban_jobs_pkey, steps_pkey and checkpoints_one_pending.
UPDATE public.oban_jobs AS j
SET state = t.state::public.oban_job_state,
    attempt = greatest(0, least(coalesce(t.attempt, j.attempt - 1), j.max_attempts)),
    cancelled_at = CASE WHEN t.state = 'cancelled' THEN t.at END,
    discarded_at = CASE WHEN t.state = 'discarded' THEN t.at END,
    completed_at = CASE WHEN t.state = 'completed' THEN t.at END,
    meta = CASE WHEN t.note IS NULL THEN j.meta
        ELSE coalesce(j.meta, '{}') || pg_catalog.jsonb_build_object('flowstone', t.note) END
FROM (
    SELECT g.job_id, g.note, s.attempt,
        pg_catalog.timezone('UTC', coalesce(s.finished_at, pg_catalog.clock_timestamp())) AS at,
        CASE
            WHEN s.state = 'awaiting_approval' AND EXISTS (
                SELECT FROM flowstone.checkpoints AS p
                WHERE p.step_id = s.id AND p.state = 'pending' AND p.step_job_id = g.job_id
            ) THEN 'suspended'
            WHEN s.job_id IS DISTINCT FROM g.job_id THEN 'cancelled'
            WHEN s.state IN ('running', 'cancelling') THEN 'executing'
            WHEN s.state = 'waiting' THEN 'suspended'
            WHEN s.state IN ('failed', 'upstream_failed') THEN 'discarded'
            WHEN s.state = 'cancelled' THEN 'cancelled'
            WHEN s.finished_at IS NOT NULL THEN 'completed'
            ELSE 'available'
        END AS state
    FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[], %(notes)s::text[]) AS g (job_id, step_id, note)
    LEFT JOIN flowstone.steps AS s ON s.id = g.step_id
) AS t
WHERE j.id = t.job_id AND j.state = 'executing';
