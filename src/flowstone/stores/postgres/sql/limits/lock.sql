-- Make sure that some limits have rows, and lock these in the order of their names. Uses limits_pkey.
INSERT INTO flowstone.limits AS l (name)
SELECT DISTINCT n.name FROM unnest(%(names)s::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (name) DO UPDATE SET starts = l.starts
RETURNING l.name, l.starts;
