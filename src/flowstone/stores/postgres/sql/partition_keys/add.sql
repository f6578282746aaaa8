-- Add the keys that are not there, in the order given, and write the history; the row of the definition is locked by
-- this transaction. Uses partition_keys_pkey.
WITH requested AS (
    SELECT w.key, pg_catalog.min(w.place) AS place
    FROM unnest(%(keys)s::text[]) WITH ORDINALITY AS w (key, place)
    GROUP BY w.key
), added AS (
    SELECT w.key, d.revision + pg_catalog.row_number() OVER (ORDER BY w.place) AS revision
    FROM flowstone.partition_definitions AS d
    CROSS JOIN requested AS w
    LEFT JOIN LATERAL (
        SELECT o.key, o.position, o.revision FROM flowstone.partition_keys AS o
        WHERE o.definition = %(name)s AND o.key = w.key
        OFFSET 0
    ) AS k ON true
    WHERE d.name = %(name)s AND (k.key IS NULL OR k.revision > k.position)
), kept AS (
    INSERT INTO flowstone.partition_keys (definition, key, position, revision)
    SELECT %(name)s, a.key, a.revision, a.revision FROM added AS a
    ON CONFLICT (definition, key) DO UPDATE SET position = excluded.position, revision = excluded.revision
), noted AS (
    INSERT INTO flowstone.partition_key_changes (definition, revision, key, removed, changed_by, reason)
    SELECT %(name)s, a.revision, a.key, false, %(by)s, %(reason)s FROM added AS a
), counted AS (
    UPDATE flowstone.partition_definitions SET revision = (SELECT pg_catalog.max(a.revision) FROM added AS a)
    WHERE name = %(name)s AND EXISTS (SELECT FROM added)
)
SELECT a.key FROM added AS a ORDER BY a.revision;
