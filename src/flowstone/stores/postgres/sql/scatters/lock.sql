-- Lock a step that discovers, and the run of its items; nothing comes back for an attempt that was superseded.
-- Uses steps_pkey and runs_pkey.
SELECT greatest(0, r.max_concurrency - r.active_steps) AS room, r.paused AS is_paused,
    r.allowed_failures IS NOT NULL AND r.failures > r.allowed_failures AS is_exceeded
FROM flowstone.steps AS s
JOIN flowstone.runs AS r ON r.id = %(run_id)s
WHERE s.id = %(step_id)s AND s.token = %(token)s AND s.state = 'running'
FOR NO KEY UPDATE OF s, r;
