-- Which of these queues have partitions that nobody has begun and whose runs are not paused. Uses ranges_open.
SELECT DISTINCT g.queue
FROM flowstone.ranges AS g
JOIN flowstone.runs AS r ON r.id = g.run_id AND NOT r.paused
WHERE g.is_open AND g.queue = ANY(%(queues)s::text[]);
