-- Jobs of ours that were cancelled with Oban's own tools, whose steps do not know yet: cancelled lately in the table,
-- or, while they ran, by a signal that names them. Uses oban_jobs_cancelled_at_index, oban_jobs_pkey and steps_pkey.
WITH cancelled AS (
    SELECT j.id, CASE WHEN j.args ->> 'step' ~ '^[0-9]{1,18}$' THEN (j.args ->> 'step')::bigint END AS step_id
    FROM public.oban_jobs AS j
    WHERE j.state = 'cancelled' AND j.worker = 'flowstone.executors.oban.job.StepWorker'
        AND j.cancelled_at >= pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
            - pg_catalog.make_interval(secs => %(within_seconds)s)
    UNION
    SELECT j.id, CASE WHEN j.args ->> 'step' ~ '^[0-9]{1,18}$' THEN (j.args ->> 'step')::bigint END
    FROM public.oban_jobs AS j
    WHERE j.id = ANY(%(signalled)s::bigint[]) AND j.state = 'executing'
        AND j.worker = 'flowstone.executors.oban.job.StepWorker'
)
SELECT s.id AS step_id, c.id AS job_id
FROM cancelled AS c
JOIN flowstone.steps AS s ON s.id = c.step_id AND s.finished_at IS NULL AND s.state <> 'cancelling'
WHERE s.job_id = c.id OR EXISTS (
    SELECT FROM flowstone.checkpoints AS p WHERE p.step_id = s.id AND p.state = 'pending' AND p.step_job_id = c.id
)
ORDER BY s.id;
