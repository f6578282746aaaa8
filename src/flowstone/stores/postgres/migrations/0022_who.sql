-- Who asked for a run, and the way by which a line of the audit log came. Columns without defaults that are written
-- into rows: nothing is rewritten. The audit log is small, so its indexes are made in a moment.
ALTER TABLE flowstone.runs ADD COLUMN requested_by text, ADD COLUMN requested_via text;
ALTER TABLE flowstone.audit ADD COLUMN via text;
CREATE INDEX audit_of_actor ON flowstone.audit (actor, id);
CREATE INDEX audit_of_action ON flowstone.audit (action COLLATE "C", id);
CREATE INDEX audit_of_time ON flowstone.audit (at);
