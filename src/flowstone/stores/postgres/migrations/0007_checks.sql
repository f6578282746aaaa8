-- Results of asset checks, one row for each check that looked at the value of an attempt; a check that is run again
-- on a committed version adds a row. Rows go with their step when it is pruned.
CREATE TABLE flowstone.check_results (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    step_id      bigint      NOT NULL,
    attempt      integer     NOT NULL,
    token        bigint      NOT NULL,
    asset        text        NOT NULL,
    partition    text        NOT NULL,
    check_name   text        NOT NULL,
    passed       boolean     NOT NULL,
    severity     text        NOT NULL CHECK (severity IN ('error', 'warning')),
    blocking     boolean     NOT NULL,
    description  text        NOT NULL DEFAULT '',
    error        text,
    metadata     jsonb       NOT NULL DEFAULT '{}',
    started_at   timestamptz NOT NULL,
    took_seconds double precision NOT NULL
);
-- The newest of each check, and the newest of all, of an asset or of one partition.
CREATE INDEX check_results_latest ON flowstone.check_results (asset, partition, check_name, id DESC);
CREATE INDEX check_results_of_asset ON flowstone.check_results (asset, id DESC);
CREATE INDEX check_results_of_step ON flowstone.check_results (step_id);
CREATE INDEX check_results_failed ON flowstone.check_results (asset, id DESC) WHERE NOT passed;
