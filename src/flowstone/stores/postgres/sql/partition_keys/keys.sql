-- The keys of a definition in the order of their addition, which is the order of their last change.
-- Uses partition_keys_changed.
SELECT k.key
FROM flowstone.partition_keys AS k
WHERE k.definition = %(name)s AND k.revision = k.position
ORDER BY k.revision;
