-- What is recorded of one asset: steps, values, their bytes as far as they are known, and steps that are not over.
-- Uses steps_of_target.
SELECT pg_catalog.count(*) AS steps,
    pg_catalog.count(*) FILTER (WHERE s.output_step = s.id) AS with_value,
    coalesce(pg_catalog.sum((s.output ->> 'size_bytes')::bigint) FILTER (WHERE s.output_step = s.id), 0)::bigint
        AS size_bytes,
    pg_catalog.count(*) FILTER (WHERE s.finished_at IS NULL) AS open_steps
FROM flowstone.steps AS s
WHERE s.asset = %(asset)s;
