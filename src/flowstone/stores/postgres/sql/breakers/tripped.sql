-- Breakers that are not closed, without a lock: what starts while one opens had started before. Uses breakers_pkey.
SELECT name FROM flowstone.breakers WHERE name = ANY(%(names)s::text[]) AND open_until IS NOT NULL;
