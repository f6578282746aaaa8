-- Since when a step that needs no job is ready, so that traces and metrics know how long it waited for a worker, as they
-- do of steps with jobs.
ALTER TABLE flowstone.steps ADD COLUMN ready_at timestamptz;
