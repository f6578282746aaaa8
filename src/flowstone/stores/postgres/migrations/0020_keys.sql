-- Digests of the partitions of a run's assets where it was placed, by asset: a worker that declares the same ones need
-- not ask of each step whether the asset still has its partition.
ALTER TABLE flowstone.runs ADD COLUMN keys jsonb;
