-- Queues whose limit per node was changed at run time. Uses queues_pkey.
SELECT name, node_limit FROM flowstone.queues WHERE node_limit IS NOT NULL;
