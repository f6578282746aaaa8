-- Record that steps are to be cancelled: what has not started is over, what runs is asked to stop.
-- Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = CASE WHEN s.state IN ('running', 'cancelling') THEN 'cancelling' ELSE 'cancelled' END,
    reason = CASE WHEN s.state IN ('running', 'cancelling') THEN s.reason
        WHEN s.state = 'awaiting_approval' THEN 'cancelled while it waited for approval'
        ELSE 'cancelled before it started' END,
    finished_at = CASE WHEN s.state IN ('running', 'cancelling') THEN NULL ELSE pg_catalog.clock_timestamp() END
FROM (
    SELECT id, state FROM flowstone.steps
    WHERE id = ANY(%(ids)s::bigint[])
        AND state IN ('waiting', 'scheduled', 'pending', 'running', 'retrying', 'awaiting_approval', 'cancelling')
    ORDER BY id
    FOR NO KEY UPDATE
) AS c
WHERE s.id = c.id
RETURNING s.id, s.run_id, s.state, s.job_id, s.limits, c.state = 'awaiting_approval' AS had_requested;
