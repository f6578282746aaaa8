-- Items of a scatter in some states, in the order of discovery, from a position on; a small value comes along.
-- Uses scatter_items_in_order, steps_pkey, output_payloads_pkey.
SELECT i.position, i.step_id, s.partition, i.item, s.state, s.attempt, s.output, p.payload, s.error, s.error_type
FROM flowstone.scatter_items AS i
JOIN flowstone.steps AS s ON s.id = i.step_id
LEFT JOIN flowstone.output_payloads AS p
    ON p.version = pg_catalog.substr(s.output ->> 'location', 8) AND s.output ->> 'location' LIKE 'inline:%%'
WHERE i.run_id = %(run_id)s AND i.position > %(after)s AND s.state = ANY(%(states)s::text[])
ORDER BY i.position
LIMIT %(limit)s;
