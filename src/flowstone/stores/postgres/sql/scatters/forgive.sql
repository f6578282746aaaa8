-- Failures of items that vanished count no more. Uses runs_pkey.
UPDATE flowstone.runs SET failures = failures - %(failures)s WHERE id = %(run_id)s;
