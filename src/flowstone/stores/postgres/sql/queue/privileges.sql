-- What a worker does to Oban's tables and this role may not do, as the statements that would let it.
SELECT 'GRANT ' || pg_catalog.string_agg(p.privilege, ', ' ORDER BY p.privilege) || ' ON ' || n.name::text || ' TO '
    || pg_catalog.quote_ident(current_user)
FROM (VALUES (pg_catalog.to_regclass('public.oban_jobs')), (pg_catalog.to_regclass('public.oban_producers'))) AS n (name)
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (privilege)
WHERE NOT pg_catalog.has_table_privilege(n.name::oid, p.privilege)
GROUP BY n.name
ORDER BY n.name::text;
