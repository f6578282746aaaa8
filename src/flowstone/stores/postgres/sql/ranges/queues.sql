-- Queues on which runs have partitions that nobody has begun. Uses ranges_of_run.
SELECT DISTINCT queue FROM flowstone.ranges WHERE run_id = ANY(%(runs)s::text[]) AND is_open;
