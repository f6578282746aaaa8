-- The version to read for each (run, asset, partition): the run's own result wins, else the current one. A small value
-- comes along. Uses steps_of_target, current_outputs_pkey, steps_pkey, output_payloads_pkey.
SELECT t.position, s.id AS step_id, s.output, p.payload, s.started_at, own.output_step IS NOT NULL AS own
FROM unnest(%(runs)s::text[], %(assets)s::text[], %(partitions)s::text[])
    WITH ORDINALITY AS t (run_id, asset, partition, position)
LEFT JOIN LATERAL (
    SELECT o.output_step
    FROM flowstone.steps AS o
    WHERE o.asset = t.asset AND o.partition = t.partition AND o.run_id = t.run_id AND o.output_step IS NOT NULL
    LIMIT 1
) AS own ON true
LEFT JOIN flowstone.current_outputs AS c ON c.asset = t.asset AND c.partition = t.partition
JOIN flowstone.steps AS s ON s.id = coalesce(own.output_step, c.step_id)
LEFT JOIN flowstone.output_payloads AS p
    ON p.version = pg_catalog.substr(s.output ->> 'location', 8) AND s.output ->> 'location' LIKE 'inline:%%';
