-- Inputs of a step that are not there yet. Uses step_edges_of_child.
SELECT p.id, p.asset, p.partition, p.state
FROM flowstone.step_edges AS e
JOIN flowstone.steps AS p ON p.id = e.parent_id
WHERE e.child_id = %(step_id)s AND p.state NOT IN ('completed', 'reused')
    AND NOT (e.optional AND p.state = 'skipped')
ORDER BY p.id
LIMIT 20;
