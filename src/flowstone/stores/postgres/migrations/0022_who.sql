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
