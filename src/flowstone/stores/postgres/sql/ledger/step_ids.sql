-- Reserve ids for new steps.
SELECT pg_catalog.array_agg(pg_catalog.nextval('flowstone.step_ids'))
FROM pg_catalog.generate_series(1, %(number)s);
