-- Fan-out at run time: the items that a step discovered are steps of a run of their own, which releases it.

-- The run and the step that a run of items belongs to, and how many of its items may fail; nothing for other runs.
ALTER TABLE flowstone.runs
    ADD COLUMN parent text,
    ADD COLUMN releases_step bigint,
    ADD COLUMN allowed_failures bigint;
CREATE INDEX runs_of_parent ON flowstone.runs (parent) WHERE parent IS NOT NULL;

-- An item is found through its scatter: it moves no pointer, so that current_outputs does not grow with items.
ALTER TABLE flowstone.steps ADD COLUMN is_item boolean NOT NULL DEFAULT false;

CREATE TABLE flowstone.scatters (
    run_id    text    PRIMARY KEY,
    -- the step that discovers and gathers, and the fencing token of the attempt that discovers
    step_id   bigint  NOT NULL UNIQUE,
    token     bigint  NOT NULL,
    -- while items are discovered; the run of the items is held open so long
    is_open   boolean NOT NULL DEFAULT true,
    -- an attempt was repeated, so that items of an earlier one may be there that the last one did not find
    is_reopened boolean NOT NULL DEFAULT false,
    -- too many items failed, or the step ended without them: the rest is being cancelled
    is_stopping boolean NOT NULL DEFAULT false,
    total     bigint,
    -- exact versions that the discovery read
    inputs    jsonb
);
CREATE INDEX scatters_stopping ON flowstone.scatters (run_id) WHERE is_stopping;

-- What each item step works on: JSON text, because jsonb would change numbers and the order of keys.
CREATE TABLE flowstone.scatter_items (
    step_id  bigint PRIMARY KEY,
    run_id   text   NOT NULL,
    position bigint NOT NULL,
    token    bigint NOT NULL,
    item     text   NOT NULL
);
CREATE INDEX scatter_items_in_order ON flowstone.scatter_items (run_id, position);
