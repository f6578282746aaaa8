-- Lock a limited run and return the room in its window. Uses runs_pkey.
SELECT greatest(0, max_concurrency - active_steps) AS room
FROM flowstone.runs
WHERE id = %(run_id)s AND NOT paused
FOR NO KEY UPDATE;
