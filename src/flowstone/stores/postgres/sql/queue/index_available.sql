-- An index of ours on Oban's jobs, over our rows that wait: however many of others stand in a queue of the same name, a
-- poll for work finds ours at once.
CREATE INDEX IF NOT EXISTS flowstone_available ON public.oban_jobs (queue, priority, scheduled_at, id)
WHERE state = 'available' AND worker IN ('flowstone.executors.oban.job.StepWorker', 'flowstone.Expiry');
