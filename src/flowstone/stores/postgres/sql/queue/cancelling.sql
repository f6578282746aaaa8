-- Steps of a worker that are to be stopped. Uses steps_at_work.
SELECT id FROM flowstone.steps WHERE worker = %(worker)s AND state = 'cancelling';
