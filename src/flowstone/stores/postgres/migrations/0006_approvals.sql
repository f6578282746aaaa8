-- Approvals: requests to people, what they decided, and the audit log.

-- Whether a step ever asked: only then are its approvals looked up when it starts.
ALTER TABLE flowstone.steps ADD COLUMN asked boolean NOT NULL DEFAULT false;

CREATE TABLE flowstone.checkpoints (
    id           bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    step_id      bigint      NOT NULL,
    run_id       text        NOT NULL,
    asset        text        NOT NULL,
    partition    text        NOT NULL,
    gate         text        NOT NULL,
    attempt      integer     NOT NULL,
    message      text        NOT NULL,
    -- json and not jsonb: what user code gave comes back exactly, escapes that jsonb refuses included
    data         json        NOT NULL,
    resume       json        NOT NULL,
    state        text        NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'approved', 'rejected', 'expired', 'cancelled')),
    on_timeout   text        NOT NULL CHECK (on_timeout IN ('reject', 'approve', 'skip')),
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    decided_at   timestamptz,
    decided_by   text,
    comment      text,
    -- the row of oban_jobs that ends the wait in time
    job_id       bigint,
    -- the state that was told last, and until when nobody else need try to tell the present one
    told         text,
    tell_after   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CHECK ((decided_at IS NULL) = (state = 'pending'))
);
CREATE UNIQUE INDEX checkpoints_one_pending ON flowstone.checkpoints (step_id) WHERE state = 'pending';
CREATE INDEX checkpoints_of_step ON flowstone.checkpoints (step_id, id);
CREATE INDEX checkpoints_due ON flowstone.checkpoints (expires_at) WHERE state = 'pending';
CREATE INDEX checkpoints_untold ON flowstone.checkpoints (tell_after) WHERE told IS DISTINCT FROM state;

CREATE TABLE flowstone.audit (
    id      bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    actor   text        NOT NULL,
    action  text        NOT NULL,
    subject text        NOT NULL,
    details jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_of_subject ON flowstone.audit (subject, id);

CREATE FUNCTION flowstone.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log only grows';
END
$$;
CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON flowstone.audit
    FOR EACH STATEMENT EXECUTE FUNCTION flowstone.refuse_change();
