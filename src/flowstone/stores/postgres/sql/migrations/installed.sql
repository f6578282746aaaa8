-- Whether the bookkeeping exists at all. Index: pg_class_relname_nsp_index.
SELECT pg_catalog.to_regclass('flowstone.migrations') IS NOT NULL;
