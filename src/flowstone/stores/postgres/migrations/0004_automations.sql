-- What runs by itself: schedules, sensors and conditions, their ticks, and the run keys that were used.

CREATE TABLE flowstone.automations (
    kind          text        NOT NULL,
    name          text        NOT NULL,
    paused        boolean     NOT NULL DEFAULT false,
    cursor        text,
    since         timestamptz NOT NULL,
    due_at        timestamptz,
    last_tick_at  timestamptz,
    failures      integer     NOT NULL DEFAULT 0,
    -- somebody asked for an evaluation by hand; whether the one at work answers that
    requested     boolean     NOT NULL DEFAULT false,
    by_hand       boolean     NOT NULL DEFAULT false,
    -- the right to conclude; 0 when nobody has it
    token         bigint      NOT NULL DEFAULT 0,
    taken_until   timestamptz,
    lease_seconds double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, name)
) WITH (fillfactor = 50);

CREATE TABLE flowstone.ticks (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text        NOT NULL,
    name         text        NOT NULL,
    tick_at      timestamptz NOT NULL,
    state        text        NOT NULL,
    reason       text,
    error        text,
    run_ids      text[]      NOT NULL DEFAULT '{}',
    evaluated_at timestamptz NOT NULL,
    took_seconds double precision NOT NULL DEFAULT 0,
    by_hand      boolean     NOT NULL DEFAULT false,
    worker       text,
    -- further evaluations that came to the same
    repeats      integer     NOT NULL DEFAULT 0
);
-- however many nodes evaluate: an instant happens once
CREATE UNIQUE INDEX ticks_once ON flowstone.ticks (kind, name, tick_at) WHERE NOT by_hand;
CREATE INDEX ticks_newest ON flowstone.ticks (kind, name, id DESC);

-- Kept for good: a run key never triggers twice.
CREATE TABLE flowstone.run_keys (
    kind    text        NOT NULL,
    name    text        NOT NULL,
    run_key text        NOT NULL,
    run_id  text        NOT NULL,
    used_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (kind, name, run_key)
);
