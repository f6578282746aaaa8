-- Whether Oban's tables are there.
SELECT pg_catalog.to_regclass('public.oban_jobs') IS NOT NULL;
