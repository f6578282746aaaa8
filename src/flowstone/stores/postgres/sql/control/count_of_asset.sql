-- What is recorded of one asset: steps, values, their bytes as far as they are known, and steps that are not over.
-- Uses steps_of_target.
SELECT pg_catalog.count(*),
    pg_catalog.count(*) FILTER (WHERE s.output_step = s.id),
    coalesce(pg_catalog.sum((s.output ->> 'size_bytes')::bigint) FILTER (WHERE s.output_step = s.id), 0)::bigint,
    pg_catalog.count(*) FILTER (WHERE s.finished_at IS NULL)
FROM flowstone.steps AS s
WHERE s.asset = %(asset)s;
