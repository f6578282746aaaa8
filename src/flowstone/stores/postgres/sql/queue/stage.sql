-- Make jobs of ours available that are due, as Oban's stager does for everybody's, and say which of these queues have
-- work for us. Uses flowstone_due (else oban_jobs_staging_index) and flowstone_available.
WITH due AS (
    SELECT id
    FROM public.oban_jobs
    WHERE state IN ('scheduled', 'retryable') AND queue = ANY(%(queues)s::text[])
        AND scheduled_at <= pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
        AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
    ORDER BY scheduled_at, id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), staged AS (
    UPDATE public.oban_jobs AS j SET state = 'available' FROM due WHERE j.id = due.id RETURNING j.queue
)
SELECT queue FROM staged
UNION
SELECT q.queue
FROM unnest(%(queues)s::text[]) AS q (queue)
WHERE EXISTS (
    SELECT FROM public.oban_jobs AS j
    WHERE j.state = 'available' AND j.queue = q.queue
        AND j.worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry')
);
