-- Attempts that are over, for programs that report them elsewhere (lineage): noted by the transaction that ends them, so
-- that none is lost, and taken off once they are reported.

-- New tables and a function only. The trigger that fills them is made when the first program subscribes: until then the
-- commit does nothing more than before.

CREATE TABLE flowstone.feeds (
    name      text PRIMARY KEY,
    -- a feed that nobody has asked for within a week gets nothing more
    polled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

CREATE TABLE flowstone.feed_entries (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed        text        NOT NULL,
    step_id     bigint      NOT NULL,
    attempt     integer     NOT NULL,
    -- until when it is claimed, or when the next try is due
    claim_after timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    tries       integer     NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE INDEX feed_entries_due ON flowstone.feed_entries (feed, claim_after, id);

CREATE FUNCTION flowstone.feed_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO flowstone.feed_entries (feed, step_id, attempt)
    SELECT f.name, e.step_id, e.attempt
    FROM ended AS e
    CROSS JOIN flowstone.feeds AS f
    WHERE f.polled_at > pg_catalog.clock_timestamp() - interval '7 days'
    ORDER BY e.step_id, e.attempt;
    RETURN NULL;
END
$$;
