-- Let go of items that the last attempt to discover did not find any more; returns their steps and states.
-- Uses scatter_items_in_order and steps_pkey.
WITH gone AS (
    DELETE FROM flowstone.scatter_items AS i
    USING flowstone.scatters AS c
    WHERE c.run_id = ANY(%(runs)s::text[]) AND i.run_id = c.run_id AND i.token <> c.token
    RETURNING i.step_id, i.run_id
)
SELECT g.step_id, g.run_id, s.state FROM gone AS g JOIN flowstone.steps AS s ON s.id = g.step_id ORDER BY g.step_id;
