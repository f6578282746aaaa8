-- Keys of dynamic partitions and their history.

-- name: lock
-- Make sure that definitions have rows, and lock these in the order of their names. Uses partition_definitions_pkey.
INSERT INTO flowstone.partition_definitions AS d (name)
SELECT DISTINCT n.name FROM unnest(%(names)s::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (name) DO UPDATE SET revision = d.revision;

-- name: keys
-- The keys of a definition in the order of their addition, which is the order of their last change.
-- Uses partition_keys_changed.
SELECT k.key
FROM flowstone.partition_keys AS k
WHERE k.definition = %(name)s AND k.revision = k.position
ORDER BY k.revision;

-- name: changed
-- Keys that were added or removed since a revision, as they stand now. Uses partition_keys_changed.
SELECT k.key, k.position, k.revision
FROM flowstone.partition_keys AS k
WHERE k.definition = %(name)s AND k.revision > %(after)s
ORDER BY k.revision;

-- name: add
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

-- name: remove
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

-- name: history
-- The newest changes of a definition, or of one key of it. Uses partition_key_changes_pkey or
-- partition_key_changes_of_key.
SELECT c.definition, c.revision, c.key, c.removed, c.changed_at AS at, c.changed_by AS "by", c.reason
FROM flowstone.partition_key_changes AS c
WHERE c.definition = %(name)s AND (%(key)s::text IS NULL OR c.key = %(key)s)
ORDER BY c.revision DESC
LIMIT %(limit)s;
