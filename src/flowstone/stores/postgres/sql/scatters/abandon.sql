-- End the discovery of scatters whose steps are over; returns those that were held open by it. Uses scatters_pkey.
UPDATE flowstone.scatters SET is_open = false WHERE run_id = ANY(%(runs)s::text[]) AND is_open RETURNING run_id;
