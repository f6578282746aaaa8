-- Remove the rows of workers that were lost long ago. Uses workers_pkey.
DELETE FROM flowstone.workers WHERE lost_at < pg_catalog.clock_timestamp() - interval '1 day';
