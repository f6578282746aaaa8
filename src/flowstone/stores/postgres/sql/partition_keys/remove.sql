-- Remove the keys that are there, and write the history; the row of the definition is locked by this transaction.
-- Uses partition_keys_pkey, once for each key: joins would be planned for the few keys that unnest is taken for.
WITH requested AS (
    SELECT w.key, pg_catalog.min(w.place) AS place
    FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS w (key, place)
    GROUP BY w.key
), gone AS (
    SELECT w.key, k.position, d.revision + pg_catalog.row_number() OVER (ORDER BY w.place) AS revision
    FROM flowstone.partition_definitions AS d
    CROSS JOIN requested AS w
    CROSS JOIN LATERAL (
        SELECT o.position, o.revision FROM flowstone.partition_keys AS o
        WHERE o.definition = %(name)s AND o.key = w.key
        OFFSET 0
    ) AS k
    WHERE d.name = %(name)s AND k.revision = k.position
), kept AS (
    INSERT INTO flowstone.partition_keys (definition, key, position, revision)
    SELECT %(name)s, g.key, g.position, g.revision FROM gone AS g
    ON CONFLICT (definition, key) DO UPDATE SET revision = excluded.revision
), noted AS (
    INSERT INTO flowstone.partition_key_changes (definition, revision, key, removed, changed_by, reason)
    SELECT %(name)s, g.revision, g.key, true, %(by)s, %(reason)s FROM gone AS g
), counted AS (
    UPDATE flowstone.partition_definitions SET revision = (SELECT pg_catalog.max(g.revision) FROM gone AS g)
    WHERE name = %(name)s AND EXISTS (SELECT FROM gone)
)
SELECT g.key FROM gone AS g ORDER BY g.revision;
