-- What is set for a queue. Uses queues_pkey.
SELECT paused, node_limit FROM flowstone.queues WHERE name = %(name)s;
