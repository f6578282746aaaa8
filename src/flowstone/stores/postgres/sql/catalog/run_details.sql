-- What a run is about, secrets included. Uses runs_pkey.
SELECT details FROM flowstone.runs WHERE id = %(run_id)s;
