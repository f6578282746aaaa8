-- Remove the keys that are there, and write the history; the row of the definition is locked by this transaction.
-- Uses partition_keys_pkey.
WITH wanted AS (
    SELECT w.key, pg_catalog.min(w.place) AS place
    FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS w (key, place)
    GROUP BY w.key
), gone AS (
    SELECT w.key, d.revision + pg_catalog.row_number() OVER (ORDER BY w.place) AS revision
    FROM flowstone.partition_definitions AS d
    CROSS JOIN wanted AS w
    JOIN flowstone.partition_keys AS k ON k.definition = d.name AND k.key = w.key
    WHERE d.name = %(name)s AND k.revision = k.position
), kept AS (
    UPDATE flowstone.partition_keys AS k SET revision = g.revision
    FROM gone AS g
    WHERE k.definition = %(name)s AND k.key = g.key
), noted AS (
    INSERT INTO flowstone.partition_key_changes (definition, revision, key, removed, changed_by, reason)
    SELECT %(name)s, g.revision, g.key, true, %(by)s, %(reason)s FROM gone AS g
), counted AS (
    UPDATE flowstone.partition_definitions SET revision = (SELECT pg_catalog.max(g.revision) FROM gone AS g)
    WHERE name = %(name)s AND EXISTS (SELECT FROM gone)
)
SELECT g.key FROM gone AS g ORDER BY g.revision;
