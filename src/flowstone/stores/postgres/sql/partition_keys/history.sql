-- The newest changes of a definition, or of one key of it. Uses partition_key_changes_pkey or
-- partition_key_changes_of_key.
SELECT c.definition, c.revision, c.key, c.removed, c.changed_at AS at, c.changed_by AS "by", c.reason
FROM flowstone.partition_key_changes AS c
WHERE c.definition = %(name)s AND (%(key)s::text IS NULL OR c.key = %(key)s)
ORDER BY c.revision DESC
LIMIT %(limit)s;
