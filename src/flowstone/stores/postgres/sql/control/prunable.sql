-- Steps of runs that ended long ago which nothing needs any more: not what load returns, not what a kept step was made
-- from, not what a reused step stands on. Pruned from the leaves of the lineage, a batch at a time. What counts here
-- counts in control/count_prunable too.
-- Uses steps_of_run, current_outputs_pkey, lineage_readers, steps_reused.
SELECT s.id, CASE WHEN s.output_step = s.id THEN s.output END AS output
FROM flowstone.runs AS r
JOIN flowstone.steps AS s ON s.run_id = r.id
WHERE r.state <> 'running'
    AND r.finished_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
    -- items are kept as long as the step that gathers them
    AND (r.releases_step IS NULL OR NOT EXISTS (SELECT FROM flowstone.steps AS p WHERE p.id = r.releases_step))
    AND s.state IN ('completed', 'reused', 'failed', 'upstream_failed', 'skipped', 'cancelled')
    AND NOT EXISTS (
        SELECT FROM flowstone.current_outputs AS c
        WHERE c.asset = s.asset AND c.partition = s.partition AND c.step_id = s.id
    )
    AND NOT EXISTS (SELECT FROM flowstone.lineage AS l WHERE l.upstream_step_id = s.id)
    AND NOT EXISTS (SELECT FROM flowstone.steps AS u WHERE u.output_step = s.id AND u.state = 'reused')
LIMIT %(limit)s
FOR UPDATE OF s SKIP LOCKED;
