-- How many steps of each asset are not over. Uses steps_one_active.
SELECT s.asset, pg_catalog.count(*) AS active
FROM flowstone.steps AS s
WHERE s.finished_at IS NULL AND s.asset = ANY(%(assets)s::text[])
GROUP BY s.asset;
