-- Note that a run was cancelled as a whole, even if nothing of it was left to cancel; what is over stays what it was.
-- Uses runs_pkey.
UPDATE flowstone.runs SET cancellations = cancellations + (state = 'running')::integer WHERE id = %(run_id)s
RETURNING id;
