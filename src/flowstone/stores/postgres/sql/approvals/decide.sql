-- Decide requests that are still open: by a person before their time is over, by the time itself after it. The steps
-- are locked first, as everybody does who moves them; of two at once the second one finds nothing to decide.
-- Uses checkpoints_pkey and steps_pkey.
WITH locked AS (
    SELECT c.id
    FROM flowstone.checkpoints AS c
    JOIN flowstone.steps AS s ON s.id = c.step_id
    WHERE c.id = ANY(%(ids)s::bigint[]) AND c.state = 'pending'
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
), decided AS (
    UPDATE flowstone.checkpoints AS c
    SET state = %(state)s,
        decided_at = pg_catalog.clock_timestamp(),
        decided_by = %(by)s,
        comment = %(comment)s,
        announce_after = pg_catalog.clock_timestamp()
    FROM locked AS l
    WHERE c.id = l.id AND c.state = 'pending'
        AND (c.expires_at <= pg_catalog.clock_timestamp()) = (%(state)s = 'expired')
    RETURNING c.*
), logged AS (
    INSERT INTO flowstone.audit (actor, action, subject, details)
    SELECT coalesce(d.decided_by, 'flowstone'), 'approval.' || d.state, 'approval:' || d.id,
        pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('comment', d.comment))
    FROM decided AS d
    ORDER BY d.id
)
SELECT id, step_id, run_id, asset, partition, gate, attempt, message, data, resume, state, on_timeout, created_at,
    expires_at, decided_at, decided_by, comment
FROM decided
ORDER BY id;
