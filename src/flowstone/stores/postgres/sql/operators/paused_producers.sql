-- Nodes of ours on which a queue was paused with Oban's tools. The table of producers is small.
SELECT name, node
FROM public.oban_producers
WHERE queue = %(queue)s AND node LIKE 'flowstone@%%' AND meta ->> 'paused' = 'true'
    AND updated_at > pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute';
