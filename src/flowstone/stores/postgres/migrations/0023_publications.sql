-- What is committed and not yet visible where others read it: tables in other databases. The newest one of each target;
-- a row is there from the commit until it is published, so there are few.
CREATE TABLE flowstone.unpublished (
    asset text NOT NULL,
    partition text NOT NULL,
    step_id bigint NOT NULL REFERENCES flowstone.steps (id) ON DELETE CASCADE,
    token bigint NOT NULL,
    in_use boolean NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (asset, partition)
);
CREATE INDEX unpublished_step ON flowstone.unpublished (step_id);

-- Which store draws the tokens; those of two stores say nothing about each other.
CREATE TABLE flowstone.identity (id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid());
INSERT INTO flowstone.identity DEFAULT VALUES;
