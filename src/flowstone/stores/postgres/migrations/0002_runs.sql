-- Runs, steps, attempts, committed outputs, lineage, workers.
--
-- There are no foreign keys: every row is written by the transaction that writes what it refers to, and pruning deletes
-- both together. A key would cost a look-up for each inserted row, which is what a bulk insert mostly consists of.

CREATE SEQUENCE flowstone.step_ids;
CREATE SEQUENCE flowstone.tokens;

CREATE TABLE flowstone.workers (
    id         text        PRIMARY KEY,
    kind       text        NOT NULL CHECK (kind IN ('node', 'inline')),
    host       text        NOT NULL,
    pid        integer     NOT NULL,
    queues     jsonb       NOT NULL DEFAULT '{}',
    lease_seconds double precision NOT NULL,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    beat_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    lost_at    timestamptz
);

CREATE TABLE flowstone.runs (
    id              text        PRIMARY KEY,
    kind            text        NOT NULL,
    selection       text        NOT NULL,
    executor        text        NOT NULL,
    durable         boolean     NOT NULL,
    driver          text,
    state           text        NOT NULL DEFAULT 'running',
    priority        smallint    NOT NULL,
    max_concurrency integer     CHECK (max_concurrency > 0),
    watched         boolean     NOT NULL DEFAULT false,
    paused          boolean     NOT NULL DEFAULT false,
    retry_of        text,
    -- steps that are not over, own and joined; steps placed on the queue while the window is limited
    open_steps      bigint      NOT NULL DEFAULT 0,
    active_steps    bigint      NOT NULL DEFAULT 0,
    failures        bigint      NOT NULL DEFAULT 0,
    cancellations   bigint      NOT NULL DEFAULT 0,
    deps_timeout_seconds double precision NOT NULL,
    created_at      timestamptz NOT NULL,
    finished_at     timestamptz
) WITH (fillfactor = 50);
CREATE INDEX runs_newest ON flowstone.runs (created_at DESC);

CREATE TABLE flowstone.steps (
    id           bigint      PRIMARY KEY,
    run_id       text        NOT NULL,
    asset        text        NOT NULL,
    partition    text        NOT NULL,
    state        text        NOT NULL,
    waiting_on   integer     NOT NULL DEFAULT 0,
    priority     smallint    NOT NULL,
    queue        text        NOT NULL,
    attempt      integer     NOT NULL DEFAULT 0,
    max_attempts integer     NOT NULL,
    snoozes      integer     NOT NULL DEFAULT 0,
    token        bigint      NOT NULL DEFAULT 0,
    forced       boolean     NOT NULL DEFAULT false,
    -- the row of oban_jobs that stands for it now; a row of an earlier placement can never start it
    job_id       bigint,
    worker       text,
    -- named fleet-wide limits, and the one that this step waits for, if any
    limits       jsonb,
    parked_for   text,
    output_step  bigint,
    output       jsonb,
    code_version text,
    error        text,
    error_type   text,
    reason       text,
    -- created_at is the clock of whoever asked, placed_at that of the database, by which time is measured
    created_at   timestamptz NOT NULL,
    placed_at    timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    scheduled_at timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- One active step per target: a second request joins it. The condition is on finished_at, not on the state: else the
-- planner, whose statistics are mostly made when nothing is active, takes this index for every question about states,
-- and reads all active steps to find a few of them.
CREATE UNIQUE INDEX steps_one_active ON flowstone.steps (asset, partition) WHERE finished_at IS NULL;
ALTER TABLE flowstone.steps ADD CONSTRAINT steps_finished_when_over CHECK (
    (finished_at IS NULL) = (state IN (
        'waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling'
    ))
);
CREATE INDEX steps_of_target ON flowstone.steps (asset, partition, id);
CREATE INDEX steps_of_run ON flowstone.steps (run_id, id);
CREATE INDEX steps_to_place ON flowstone.steps (run_id, priority, id) WHERE state = 'pending' AND job_id IS NULL;
CREATE INDEX steps_parked ON flowstone.steps (parked_for, priority, id) WHERE parked_for IS NOT NULL;
CREATE INDEX steps_at_work ON flowstone.steps (worker) WHERE state IN ('running', 'cancelling');

CREATE TABLE flowstone.step_edges (
    parent_id bigint NOT NULL,
    child_id  bigint NOT NULL,
    PRIMARY KEY (parent_id, child_id)
);
CREATE INDEX step_edges_of_child ON flowstone.step_edges (child_id);

-- Runs that wait for a step of another run.
CREATE TABLE flowstone.run_joins (
    step_id bigint NOT NULL,
    run_id  text   NOT NULL,
    PRIMARY KEY (step_id, run_id)
);
CREATE INDEX run_joins_of_run ON flowstone.run_joins (run_id);

CREATE TABLE flowstone.attempts (
    step_id     bigint      NOT NULL,
    attempt     integer     NOT NULL,
    token       bigint      NOT NULL,
    state       text        NOT NULL,
    worker      text,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    error       text,
    error_type  text,
    retry_at    timestamptz,
    PRIMARY KEY (step_id, attempt, token)
);

CREATE TABLE flowstone.current_outputs (
    asset        text        NOT NULL,
    partition    text        NOT NULL,
    step_id      bigint      NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (asset, partition)
) WITH (fillfactor = 80);

CREATE TABLE flowstone.lineage (
    step_id          bigint NOT NULL,
    parameter        text   NOT NULL,
    upstream_step_id bigint NOT NULL,
    PRIMARY KEY (step_id, upstream_step_id, parameter)
);
CREATE INDEX lineage_readers ON flowstone.lineage (upstream_step_id);

CREATE INDEX steps_reused ON flowstone.steps (output_step) WHERE state = 'reused';

-- Values of the IO manager "postgres": small ones travel with the committing transaction, large ones in chunks.
CREATE TABLE flowstone.output_payloads (
    version text  PRIMARY KEY,
    payload bytea NOT NULL
);
CREATE TABLE flowstone.output_chunks (
    version text    NOT NULL,
    chunk   integer NOT NULL,
    payload bytea   NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (version, chunk)
);
ALTER TABLE flowstone.output_chunks ALTER COLUMN payload SET STORAGE EXTERNAL;
