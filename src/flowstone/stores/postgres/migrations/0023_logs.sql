-- What attempts log: batches of lines, only added, written beside the transactions that move steps. No foreign key:
-- checking it would lock rows of steps that are about to be committed. A new table; nothing that exists is touched.
CREATE TABLE flowstone.logs (
    step_id bigint NOT NULL,
    attempt integer NOT NULL,
    token bigint NOT NULL,
    line integer NOT NULL,
    lines integer NOT NULL,
    run_id text NOT NULL,
    written_at timestamp with time zone NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    body text NOT NULL,
    CONSTRAINT logs_pkey PRIMARY KEY (step_id, attempt, token, line)
);
CREATE INDEX logs_of_run ON flowstone.logs (run_id, written_at);
CREATE INDEX logs_written ON flowstone.logs (written_at);
