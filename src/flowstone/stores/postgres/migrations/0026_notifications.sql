-- Notifications: decided in the transactions in which things happen, sent later by whoever claims them.

-- New tables only: nothing that exists is touched, and nothing is written here while no app declares a rule.

-- What the app of any process in the project is to be notified of. A process that ends the steps of a lost worker need
-- not know their assets.
CREATE TABLE flowstone.notify_rules (
    name             text PRIMARY KEY,
    events           text[] NOT NULL,
    -- null: all
    assets           text[],
    automations      text[],
    wait_seconds     double precision NOT NULL,
    deadline_seconds double precision,
    declared_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

CREATE TABLE flowstone.notifications (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule        text        NOT NULL,
    -- what its notices have in common: a run, an automation, an asset, an approval
    key         text        NOT NULL,
    run_id      text,
    state       text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'given_up')),
    -- until it is claimed for the first time it takes up what happens in the same run
    collects    boolean     NOT NULL DEFAULT true,
    counts      jsonb       NOT NULL,
    -- the first of them
    notices     jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    -- when it is sent even if its run goes on
    due_at      timestamptz NOT NULL,
    -- until when it is claimed, or when the next try is due
    claim_after timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    attempts    integer     NOT NULL DEFAULT 0,
    token       bigint      NOT NULL DEFAULT 0,
    error       text,
    sent_at     timestamptz
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX notifications_collecting ON flowstone.notifications (rule, key) WHERE collects;
CREATE INDEX notifications_of_key ON flowstone.notifications (rule, key);
CREATE INDEX notifications_pending ON flowstone.notifications (claim_after) WHERE state = 'pending';
CREATE INDEX notifications_of_run ON flowstone.notifications (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX notifications_created ON flowstone.notifications (created_at);

-- What is remembered from one notification to the next: failures (`failed`, `check`, `automation`) and assets (`late`) of which it
-- was not reported that they are well again, and since when an asset without data is known (`seen`).
CREATE TABLE flowstone.notify_marks (
    kind      text        NOT NULL CHECK (kind IN ('failed', 'check', 'automation', 'late', 'seen')),
    subject   text        NOT NULL,
    partition text        NOT NULL DEFAULT '',
    detail    text        NOT NULL DEFAULT '',
    at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (kind, subject, partition, detail)
);
