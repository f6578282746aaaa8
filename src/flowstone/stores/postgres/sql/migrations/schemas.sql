-- Schemas that hold the record of migrations of ours, whichever project they belong to. Index: pg_class_relname_nsp_index.
SELECT n.nspname
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relname = 'migrations' AND c.relkind = 'r' AND pg_catalog.starts_with(n.nspname, 'flowstone')
ORDER BY n.nspname;
