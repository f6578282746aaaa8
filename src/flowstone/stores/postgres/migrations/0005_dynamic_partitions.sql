-- Dynamic partitions: keys that are added and removed at run time, and who did that when.

-- One row per definition that ever had a key: locked by whoever changes its keys, so that changes are numbered without
-- gaps and in the order in which they are committed. Readers can then ask for what is newer than what they know.
CREATE TABLE flowstone.partition_definitions (
    name     text   PRIMARY KEY,
    revision bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- One row per key that was ever added. It is a key at present when its last change was its addition.
CREATE TABLE flowstone.partition_keys (
    definition text   NOT NULL,
    key        text   NOT NULL,
    -- number of the change that added it last, which is its place in the order; number of its last change
    position   bigint NOT NULL,
    revision   bigint NOT NULL CHECK (revision >= position),
    PRIMARY KEY (definition, key)
);
CREATE UNIQUE INDEX partition_keys_changed ON flowstone.partition_keys (definition, revision);

CREATE TABLE flowstone.partition_key_changes (
    definition text        NOT NULL,
    revision   bigint      NOT NULL,
    key        text        NOT NULL,
    removed    boolean     NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    changed_by text,
    reason     text,
    PRIMARY KEY (definition, revision)
);
CREATE INDEX partition_key_changes_of_key ON flowstone.partition_key_changes (definition, key, revision);
