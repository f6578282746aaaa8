-- What rows of oban_jobs tell of their steps, and what a call asks of them.

-- Tags of the asset, for Oban's tools.
ALTER TABLE flowstone.steps ADD COLUMN tags text[];
ALTER TABLE flowstone.ranges ADD COLUMN tags text[], ADD COLUMN unique_seconds double precision;

-- The job of a step that waits for approval rests until somebody decides.
ALTER TABLE flowstone.checkpoints ADD COLUMN step_job_id bigint;
