-- What an attempt had read that is tried again. What the last attempt of a step had read is in `lineage`, or in
-- `tried_inputs` when it ended without a result; conditions compare only that.
ALTER TABLE flowstone.attempts ADD COLUMN read bigint[];
