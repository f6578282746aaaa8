-- What people who watch ask often: what failed, what ended lately on which queue, what workers are.
--
-- New columns without a default rewrite nothing. Of the indexes one reads the steps once, which takes seconds for
-- millions of rows; the others are partial ones over rows that are few or not there yet.

-- The version of the package a worker runs.
ALTER TABLE flowstone.workers ADD COLUMN version text;

-- The queue from which an attempt was started; empty for attempts that a process ran by itself, null for those that ended
-- before this migration.
ALTER TABLE flowstone.attempts ADD COLUMN queue text;
CREATE INDEX attempts_ended ON flowstone.attempts (queue, finished_at) INCLUDE (state, started_at) WHERE queue IS NOT NULL;

-- Steps that failed, of an asset, the newest first: an entry for each failure, none for what goes well. `state` stands
-- in the condition of other indexes already, so that no update becomes more expensive.
CREATE INDEX steps_failed ON flowstone.steps (asset, id) INCLUDE (partition)
    WHERE state IN ('failed', 'upstream_failed') AND NOT is_item;
-- Versions that were taken out of use: few.
CREATE INDEX steps_invalidated ON flowstone.steps (asset, id) INCLUDE (partition) WHERE invalidated_at IS NOT NULL;

-- Runs that are not over, and those that are by their end: few of the first, and `finished_at` changes once in the life of
-- a run, so that its counters are still updated in place.
CREATE INDEX runs_open ON flowstone.runs (created_at DESC) WHERE finished_at IS NULL;
CREATE INDEX runs_ended ON flowstone.runs (finished_at DESC) WHERE finished_at IS NOT NULL;
-- Runs by the beginning of their id and of what was asked for, whatever the collation of the database is.
CREATE INDEX runs_by_id ON flowstone.runs (id COLLATE "C");
CREATE INDEX runs_by_selection ON flowstone.runs (pg_catalog.left(selection, 100) COLLATE "C" DESC, created_at DESC);
