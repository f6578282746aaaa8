-- Circuit breakers over the fleet: limits that let nothing start after failures in a row.

-- One row per breaker that has ever counted a failure. The row of its limit is locked by whoever changes it.
CREATE TABLE flowstone.breakers (
    name       text PRIMARY KEY REFERENCES flowstone.limits (name),
    -- failed attempts since the last success
    failures   integer NOT NULL,
    opened_at  timestamptz,
    -- null while closed; when it is over, one step at a time holds the slot of the limit: it is tried
    open_until timestamptz,
    -- the step that looks again when that time has come; the others rest
    next_step  bigint
) WITH (fillfactor = 50);
