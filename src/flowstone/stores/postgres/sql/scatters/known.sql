-- Which of these items a scatter has, and under which attempt they were discovered last. Uses steps_of_target and
-- scatter_items_pkey.
SELECT g.position, i.step_id, i.token
FROM unnest(%(positions)s::bigint[], %(partitions)s::text[]) AS g (position, partition)
JOIN flowstone.steps AS s ON s.asset = %(asset)s AND s.partition = g.partition AND s.run_id = %(run_id)s
JOIN flowstone.scatter_items AS i ON i.step_id = s.id;
