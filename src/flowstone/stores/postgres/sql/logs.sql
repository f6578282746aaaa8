-- What attempts log, in batches.

-- name: append
-- Add batches; what an earlier try has written already is left as it is. Uses logs_pkey.
INSERT INTO flowstone.logs (step_id, attempt, token, line, lines, run_id, body)
SELECT b.step_id, b.attempt, b.token, b.line, b.lines, b.run_id, b.body
FROM unnest(
    %(steps)s::bigint[], %(attempts)s::integer[], %(tokens)s::bigint[], %(first)s::integer[], %(lines)s::integer[],
    %(runs)s::text[], %(bodies)s::text[]
) AS b (step_id, attempt, token, line, lines, run_id, body)
ON CONFLICT DO NOTHING;

-- name: trim
-- Delete what lies between the head and the tail of attempts. Uses logs_pkey.
DELETE FROM flowstone.logs AS l
USING unnest(
    %(steps)s::bigint[], %(attempts)s::integer[], %(tokens)s::bigint[], %(heads)s::integer[], %(tails)s::integer[]
) AS t (step_id, attempt, token, head, tail)
WHERE l.step_id = t.step_id AND l.attempt = t.attempt AND l.token = t.token AND l.line > t.head AND l.line < t.tail;

-- name: read
-- The first batches of an attempt behind a line. Uses logs_pkey.
SELECT l.step_id, l.attempt, l.token, l.line, l.lines, l.run_id, l.body
FROM flowstone.logs AS l
WHERE l.step_id = %(step_id)s AND l.attempt = %(attempt)s AND l.token >= %(token)s
    AND (l.token > %(token)s OR l.line + l.lines - 1 > %(line)s)
ORDER BY l.token, l.line
LIMIT %(limit)s;

-- name: read_newest
-- The last batches of an attempt behind a line. Uses logs_pkey.
SELECT l.step_id, l.attempt, l.token, l.line, l.lines, l.run_id, l.body
FROM flowstone.logs AS l
WHERE l.step_id = %(step_id)s AND l.attempt = %(attempt)s AND l.token >= %(token)s
    AND (l.token > %(token)s OR l.line + l.lines - 1 > %(line)s)
ORDER BY l.token DESC, l.line DESC
LIMIT %(limit)s;

-- name: of_run
-- Batches of a run in the order in which they were written, behind a place in it. Uses logs_of_run, steps_pkey.
SELECT l.written_at, l.step_id, l.attempt, l.token, l.line, l.lines, l.run_id, l.body,
    coalesce(s.asset, '') AS asset, coalesce(s.partition, '') AS partition_key
FROM flowstone.logs AS l
LEFT JOIN flowstone.steps AS s ON s.id = l.step_id
WHERE l.run_id = %(run_id)s AND l.written_at >= %(written_at)s
    AND (l.written_at, l.step_id, l.attempt, l.token, l.line)
        > (%(written_at)s, %(step_id)s, %(attempt)s, %(token)s, %(line)s)
ORDER BY l.written_at, l.step_id, l.attempt, l.token, l.line
LIMIT %(limit)s;

-- name: of_run_newest
-- The last batches of a run, the last one first, behind a place in it. Uses logs_of_run, steps_pkey.
SELECT l.written_at, l.step_id, l.attempt, l.token, l.line, l.lines, l.run_id, l.body,
    coalesce(s.asset, '') AS asset, coalesce(s.partition, '') AS partition_key
FROM flowstone.logs AS l
LEFT JOIN flowstone.steps AS s ON s.id = l.step_id
WHERE l.run_id = %(run_id)s AND l.written_at >= %(written_at)s
    AND (l.written_at, l.step_id, l.attempt, l.token, l.line)
        > (%(written_at)s, %(step_id)s, %(attempt)s, %(token)s, %(line)s)
ORDER BY l.written_at DESC, l.step_id DESC, l.attempt DESC, l.token DESC, l.line DESC
LIMIT %(limit)s;

-- name: counts
-- How much the attempts of some steps logged, and how much of that is there. Uses logs_pkey.
SELECT c.step_id, c.attempt, pg_catalog.sum(c.lines)::bigint AS lines, pg_catalog.sum(c.kept)::bigint AS kept
FROM (
    SELECT l.step_id, l.attempt, pg_catalog.max(l.line + l.lines - 1) AS lines, pg_catalog.sum(l.lines) AS kept
    FROM flowstone.logs AS l
    WHERE l.step_id = ANY(%(steps)s::bigint[])
    GROUP BY l.step_id, l.attempt, l.token
) AS c
GROUP BY c.step_id, c.attempt
ORDER BY c.step_id, c.attempt;

-- name: forget
-- Delete what some steps logged. Uses logs_pkey.
DELETE FROM flowstone.logs WHERE step_id = ANY(%(steps)s::bigint[]);

-- name: prune
-- Delete the oldest batches that were written before a time; what another process deletes just now is left to it.
-- Uses logs_written.
DELETE FROM flowstone.logs
WHERE ctid = ANY(ARRAY(
    SELECT l.ctid
    FROM flowstone.logs AS l
    WHERE l.written_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
    ORDER BY l.written_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
));
