-- State of breakers; asked after locking their limits. Uses breakers_pkey.
SELECT name, failures, pg_catalog.date_part('epoch', open_until) AS open_until, next_step
FROM flowstone.breakers
WHERE name = ANY(%(names)s::text[]);
