-- Cancel the open requests of steps that were cancelled, whose rows are locked. Uses checkpoints_one_pending.
WITH cancelled AS (
    UPDATE flowstone.checkpoints AS c
    SET state = 'cancelled', decided_at = pg_catalog.clock_timestamp(), announce_after = pg_catalog.clock_timestamp()
    WHERE c.step_id = ANY(%(steps)s::bigint[]) AND c.state = 'pending'
    RETURNING c.id
), logged AS (
    INSERT INTO flowstone.audit (actor, action, subject)
    SELECT 'flowstone', 'approval.cancelled', 'approval:' || c.id FROM cancelled AS c ORDER BY c.id
)
SELECT id FROM cancelled;
