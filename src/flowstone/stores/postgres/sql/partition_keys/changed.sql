-- Keys that were added or removed since a revision, as they stand now. Uses partition_keys_changed.
SELECT k.key, k.position, k.revision
FROM flowstone.partition_keys AS k
WHERE k.definition = %(name)s AND k.revision > %(after)s
ORDER BY k.revision;
