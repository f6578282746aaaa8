-- The same for our rows that are due later.
CREATE INDEX IF NOT EXISTS flowstone_due ON public.oban_jobs (scheduled_at, id)
WHERE state IN ('scheduled', 'retryable') AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry');
