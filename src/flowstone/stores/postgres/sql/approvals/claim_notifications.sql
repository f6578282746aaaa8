-- Claim requests whose present state was not announced yet, for as long as a lease. Uses checkpoints_unannounced.
UPDATE flowstone.checkpoints AS c
SET announce_after = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => %(lease_seconds)s)
FROM (
    SELECT id
    FROM flowstone.checkpoints
    WHERE announced IS DISTINCT FROM state AND announce_after <= pg_catalog.clock_timestamp()
        AND (state = 'pending' OR decided_at > pg_catalog.clock_timestamp() - interval '1 day')
    ORDER BY announce_after
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AS t
WHERE c.id = t.id
RETURNING c.id, c.step_id, c.run_id, c.asset, c.partition, c.gate, c.attempt, c.message, c.data, c.resume,
    c.state, c.on_timeout, c.created_at, c.expires_at, c.decided_at, c.decided_by, c.comment;
