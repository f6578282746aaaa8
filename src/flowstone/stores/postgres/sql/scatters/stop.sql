-- Note that the items of some runs are to be cancelled. Uses scatters_pkey.
UPDATE flowstone.scatters SET is_stopping = true WHERE run_id = ANY(%(runs)s::text[]);
