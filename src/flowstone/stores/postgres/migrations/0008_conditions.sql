-- What a step had read that ended without a result: a condition does not ask again for a target that failed before
-- the same inputs were replaced by other data. Lineage stays what it is: what committed versions were made from.
CREATE TABLE flowstone.tried_inputs (
    step_id          bigint NOT NULL,
    upstream_step_id bigint NOT NULL,
    PRIMARY KEY (step_id, upstream_step_id)
);
