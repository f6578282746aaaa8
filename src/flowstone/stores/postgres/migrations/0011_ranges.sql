-- Targets of large backfills that nobody has begun: a chunk of partitions of one asset in each row. Steps are made of
-- them when a worker begins them, so that a backfill of any size costs a few rows until then.
CREATE TABLE flowstone.ranges (
    id           bigint   PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    run_id       text     NOT NULL,
    asset        text     NOT NULL,
    partitions   text[]   NOT NULL,
    -- partitions before this position are steps by now
    begun        integer  NOT NULL DEFAULT 0,
    total        integer  NOT NULL CHECK (total > 0),
    is_open      boolean  NOT NULL DEFAULT true,
    -- what every step of them gets
    queue        text     NOT NULL,
    priority     smallint NOT NULL,
    max_attempts integer  NOT NULL,
    forced       boolean  NOT NULL,
    code_version text
) WITH (fillfactor = 70);
CREATE INDEX ranges_open ON flowstone.ranges (queue, run_id, id) INCLUDE (priority) WHERE is_open;
CREATE INDEX ranges_of_run ON flowstone.ranges (run_id, id);
