-- What some item steps work on. Uses scatter_items_pkey.
SELECT step_id, item FROM flowstone.scatter_items WHERE step_id = ANY(%(steps)s::bigint[]);
