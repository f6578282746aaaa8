-- Record a chunk of partitions of a run. They come as lines of one text, which takes less to write than an array: an
-- encoded partition is one line.
INSERT INTO flowstone.ranges (
    run_id, asset, partitions, total, queue, priority, max_attempts, forced, code_version,
    config_hash, same_config, tags, unique_seconds
)
VALUES (
    %(run_id)s, %(asset)s, pg_catalog.string_to_array(%(partitions)s, E'\n'), %(total)s, %(queue)s, %(priority)s,
    %(max_attempts)s, %(forced)s, %(code_version)s, %(config_hash)s, %(same_config)s, %(tags)s, %(unique_seconds)s
);
