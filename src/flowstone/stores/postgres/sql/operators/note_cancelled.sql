-- Say of steps that were just cancelled who did that, in the step and in the audit log. Uses steps_pkey.
WITH noted AS (
    UPDATE flowstone.steps AS s
    SET reason = CASE WHEN s.finished_at IS NULL THEN s.reason ELSE 'its job was cancelled with Oban''s tools' END
    FROM unnest(%(steps)s::bigint[], %(jobs)s::bigint[]) AS c (step_id, job_id)
    WHERE s.id = c.step_id
    RETURNING s.id, s.asset, s.partition, s.run_id, s.state, c.job_id
)
INSERT INTO flowstone.audit (actor, action, subject, details)
SELECT 'oban', 'job.cancelled', 'step:' || n.id,
    pg_catalog.jsonb_build_object(
        'asset', n.asset, 'partition', n.partition, 'run', n.run_id, 'job', n.job_id, 'state', n.state
    )
FROM noted AS n
ORDER BY n.id;
