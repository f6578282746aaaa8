-- Note that the items of some steps are all discovered; returns the runs of the items, and whether this closed them.
-- Uses scatters_step_id_key and runs_pkey.
WITH given AS (
    SELECT g.step_id, g.total, g.allowed, g.inputs, g.is_complete
    FROM pg_catalog.jsonb_to_recordset(%(scattered)s) AS g (
        step_id bigint, total bigint, allowed bigint, inputs jsonb, is_complete boolean
    )
), closed AS (
    UPDATE flowstone.scatters AS c
    SET is_open = false, total = g.total, inputs = coalesce(c.inputs, g.inputs)
    FROM given AS g
    WHERE c.step_id = g.step_id AND c.is_open
    RETURNING c.run_id, g.allowed
), allowed AS (
    UPDATE flowstone.runs AS r SET allowed_failures = c.allowed FROM closed AS c WHERE r.id = c.run_id
)
SELECT c.run_id, closed.run_id IS NOT NULL AS is_closed, c.is_reopened AND g.is_complete AS may_have_lost
FROM given AS g
JOIN flowstone.scatters AS c ON c.step_id = g.step_id
LEFT JOIN closed ON closed.run_id = c.run_id;
