-- Record that jobs were not run again, and why. Uses audit_pkey.
INSERT INTO flowstone.audit (actor, action, subject, details)
SELECT 'oban', 'job.retry_refused', 'step:' || r.step_id,
    pg_catalog.jsonb_build_object('job', r.job_id, 'reason', r.note)
FROM unnest(%(jobs)s::bigint[], %(steps)s::bigint[], %(notes)s::text[]) AS r (job_id, step_id, note);
