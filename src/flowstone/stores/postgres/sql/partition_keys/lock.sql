-- Make sure that definitions have rows, and lock these in the order of their names. Uses partition_definitions_pkey.
INSERT INTO flowstone.partition_definitions AS d (name)
SELECT DISTINCT n.name FROM unnest(%(names)s::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (name) DO UPDATE SET revision = d.revision;
