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
