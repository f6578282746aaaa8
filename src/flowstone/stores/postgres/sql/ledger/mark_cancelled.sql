-- Note that a run was cancelled as a whole, even if nothing of it was left to cancel. Uses runs_pkey.
UPDATE flowstone.runs SET cancellations = cancellations + 1 WHERE id = %(run_id)s RETURNING id;
