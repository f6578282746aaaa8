-- What was declared where steps were placed, and what workers know: two versions of an app may be at work at once.

-- Digests of the shapes (partitions, inputs, IO) of a run's assets where it was placed, by asset.
ALTER TABLE flowstone.runs ADD COLUMN shapes jsonb;
-- The shapes of the assets that a process knows, by asset.
ALTER TABLE flowstone.workers ADD COLUMN assets jsonb NOT NULL DEFAULT '{}';
