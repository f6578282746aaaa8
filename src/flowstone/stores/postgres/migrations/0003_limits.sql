-- Fleet-wide limits, and queues that people pause or resize.

-- One row per named limit: locked by whoever takes or frees a slot of it, so that counting is exact.
CREATE TABLE flowstone.limits (
    name   text PRIMARY KEY,
    -- times of the latest starts in seconds since 1970, for limits in time
    starts double precision[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

CREATE TABLE flowstone.slots (
    limit_name text        NOT NULL REFERENCES flowstone.limits (name),
    step_id    bigint      NOT NULL,
    taken_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (limit_name, step_id)
);
CREATE INDEX slots_of_step ON flowstone.slots (step_id);

CREATE TABLE flowstone.queues (
    name       text        PRIMARY KEY,
    paused     boolean     NOT NULL DEFAULT false,
    node_limit integer     CHECK (node_limit > 0),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
