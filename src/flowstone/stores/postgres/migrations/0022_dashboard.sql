-- What the dashboard asks for: who asked for a run, its counts once it is over, logs, what people who watch ask often,
-- and what changed which version is in use without committing one.
--
-- New columns have no default that would rewrite a table; of the indexes, two read the steps once, which takes seconds
-- for millions of rows.

-- Who asked for a run, and the way by which a line of the audit log came. Columns without defaults that are written
-- into rows: nothing is rewritten. The audit log is small, so its indexes are made in a moment.
ALTER TABLE flowstone.runs ADD COLUMN requested_by text, ADD COLUMN requested_via text;
ALTER TABLE flowstone.audit ADD COLUMN via text;
CREATE INDEX audit_of_actor ON flowstone.audit (actor, id);
CREATE INDEX audit_of_action ON flowstone.audit (action COLLATE "C", id);
CREATE INDEX audit_of_time ON flowstone.audit (at);

-- How many steps a run has, own and joined, and how they ended: written once, in the transaction that ends the run, so that
-- lists never count steps. Runs that ended before this migration have null there; whoever lists them counts theirs, page
-- by page, and maintenance fills them in.
ALTER TABLE flowstone.runs
    ADD COLUMN total_steps bigint NOT NULL DEFAULT 0,
    ADD COLUMN counts jsonb,
    ADD COLUMN asset_counts jsonb,
    -- the first and the last partition that was asked for, and how many
    ADD COLUMN first_partition text,
    ADD COLUMN last_partition text,
    ADD COLUMN partitions bigint;

-- One index for each filter of the list of runs, in the order of the list. None of their columns changes while a run
-- is under way, except its state, once: its counters are still updated in place.
CREATE INDEX runs_of_state ON flowstone.runs (state, created_at DESC, id DESC);
CREATE INDEX runs_of_kind ON flowstone.runs (kind, created_at DESC, id DESC);
CREATE INDEX runs_of_person ON flowstone.runs (requested_by, created_at DESC, id DESC) WHERE requested_by IS NOT NULL;
CREATE INDEX runs_of_automation ON flowstone.runs (created_at DESC, id DESC) WHERE requested_via = 'automation';
CREATE INDEX runs_of_people ON flowstone.runs (created_at DESC, id DESC) WHERE requested_via <> 'automation';
CREATE INDEX runs_of_asset ON flowstone.runs USING gin (assets) WHERE assets IS NOT NULL;
CREATE INDEX runs_uncounted ON flowstone.runs (id) WHERE counts IS NULL AND finished_at IS NOT NULL;

-- What failed in a run: an entry for each failure, none for what goes well. `state` stands in the condition of other
-- indexes already, so that no update becomes more expensive.
CREATE INDEX steps_failed_of_run ON flowstone.steps (run_id, id) WHERE state = 'failed';

-- What attempts log: batches of lines, only added, written beside the transactions that move steps. No foreign key:
-- checking it would lock rows of steps that are about to be committed. A new table; nothing that exists is touched.
CREATE TABLE flowstone.logs (
    step_id bigint NOT NULL,
    attempt integer NOT NULL,
    token bigint NOT NULL,
    line integer NOT NULL,
    lines integer NOT NULL,
    run_id text NOT NULL,
    written_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    body text NOT NULL,
    CONSTRAINT logs_pkey PRIMARY KEY (step_id, attempt, token, line)
);
CREATE INDEX logs_of_run ON flowstone.logs (run_id, written_at);
CREATE INDEX logs_written ON flowstone.logs (written_at);

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

-- Versions: what changed which one is in use without committing one, and what was erased.

-- Restores, invalidations and erasures, and one row for each target of which a version was pruned. Commits write nothing
-- here: their steps say when they were.
CREATE TABLE flowstone.output_changes (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    asset        text        NOT NULL,
    partition    text        NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('restored', 'invalidated', 'erased', 'pruned')),
    -- the version in use afterwards, and the one before with the time since when it was
    step_id      bigint,
    before       bigint,
    before_since timestamptz,
    at           timestamptz NOT NULL,
    actor        text,
    reason       text
);
CREATE INDEX output_changes_of_target ON flowstone.output_changes (asset, partition, id);
CREATE UNIQUE INDEX output_changes_pruned ON flowstone.output_changes (asset, partition) WHERE kind = 'pruned';

-- What was invalidated before this table was there. Reads steps once, a second or two for a million of them, and locks
-- nothing.
INSERT INTO flowstone.output_changes (asset, partition, kind, before, before_since, at)
SELECT s.asset, s.partition, 'invalidated', s.id, s.finished_at, s.invalidated_at
FROM flowstone.steps AS s
WHERE s.invalidated_at IS NOT NULL
ORDER BY s.invalidated_at, s.id;

-- When the data of a step were erased; its row stays without them. Nullable, so that the table is not rewritten.
ALTER TABLE flowstone.steps ADD COLUMN erased_at timestamptz;

-- The audit log only grows, but what its lines quote of an erased value can go: nothing else of a line can be changed, and
-- nothing can be put in its place.
CREATE FUNCTION flowstone.refuse_other_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_catalog.to_jsonb(NEW) - 'details' = pg_catalog.to_jsonb(OLD) - 'details' AND NEW.details = '{"erased": true}'
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the audit log only grows';
END
$$;
DROP TRIGGER audit_only_grows ON flowstone.audit;
CREATE TRIGGER audit_only_grows BEFORE DELETE OR TRUNCATE ON flowstone.audit
    FOR EACH STATEMENT EXECUTE FUNCTION flowstone.refuse_change();
CREATE TRIGGER audit_only_erases BEFORE UPDATE ON flowstone.audit
    FOR EACH ROW EXECUTE FUNCTION flowstone.refuse_other_change();
