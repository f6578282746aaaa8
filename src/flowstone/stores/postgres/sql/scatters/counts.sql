-- Number of items of a scatter in each state. Uses scatter_items_in_order and steps_pkey.
SELECT s.state, pg_catalog.count(*) AS number
FROM flowstone.scatter_items AS i
JOIN flowstone.steps AS s ON s.id = i.step_id
WHERE i.run_id = %(run_id)s
GROUP BY s.state;
