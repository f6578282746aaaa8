-- What there is of Oban's tables, whoever made them: from the catalogs alone.
SELECT
    pg_catalog.to_regclass('public.oban_jobs') IS NOT NULL AS has_jobs,
    pg_catalog.to_regclass('public.oban_leaders') IS NOT NULL AS has_leaders,
    pg_catalog.to_regclass('public.oban_producers') IS NOT NULL AS has_producers,
    ARRAY(
        SELECT e.enumlabel::text
        FROM pg_catalog.pg_enum AS e
        WHERE e.enumtypid = pg_catalog.to_regtype('public.oban_job_state')
    ) AS states,
    ARRAY(
        SELECT a.attname::text
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = pg_catalog.to_regclass('public.oban_jobs') AND a.attnum > 0 AND NOT a.attisdropped
    ) AS columns,
    ARRAY(
        SELECT i.relname::text
        FROM pg_catalog.pg_index AS x
        JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
        WHERE x.indrelid = pg_catalog.to_regclass('public.oban_jobs') AND x.indisvalid
    ) AS indexes,
    (
        SELECT pg_catalog.pg_get_serial_sequence('public.oban_jobs', a.attname) IS NOT NULL
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = pg_catalog.to_regclass('public.oban_jobs') AND a.attname = 'id'
    ) AS has_sequence,
    (
        SELECT pg_catalog.pg_get_userbyid(c.relowner)
        FROM pg_catalog.pg_class AS c
        WHERE c.oid = pg_catalog.to_regclass('public.oban_jobs')
    ) AS owner,
    current_user::text AS role,
    (
        SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE')
        FROM pg_catalog.pg_class AS c
        WHERE c.oid = pg_catalog.to_regclass('public.oban_jobs')
    ) AS owns,
    pg_catalog.to_regprocedure('public.oban_count_estimate(text, text)') IS NOT NULL AS has_function;
