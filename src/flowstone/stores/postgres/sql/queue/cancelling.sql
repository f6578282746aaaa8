-- Steps of a worker that somebody wants stopped. Uses steps_at_work.
SELECT id FROM flowstone.steps WHERE worker = %(worker)s AND state = 'cancelling';
