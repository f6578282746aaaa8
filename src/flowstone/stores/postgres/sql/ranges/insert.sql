-- Record a chunk of partitions of a run.
INSERT INTO flowstone.ranges (
    run_id, asset, partitions, total, queue, priority, max_attempts, forced, code_version,
    config_hash, exact, tags, unique_seconds
)
VALUES (
    %(run_id)s, %(asset)s, %(partitions)s, %(total)s, %(queue)s, %(priority)s, %(max_attempts)s, %(forced)s,
    %(code_version)s, %(config_hash)s, %(exact)s, %(tags)s, %(unique_seconds)s
);
