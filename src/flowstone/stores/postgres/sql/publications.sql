-- Publishing: what is committed becomes visible where others read it.

-- name: draw
-- Tokens for so many publications, and who draws them. Called when the pointers are locked, so that the later one of a
-- target has the larger token.
SELECT pg_catalog.nextval('flowstone.tokens') AS token, i.id::text AS issuer
FROM flowstone.identity AS i
CROSS JOIN pg_catalog.generate_series(1, %(number)s)
ORDER BY 1;

-- name: issuer
-- Who draws tokens here. The one row of identity.
SELECT i.id::text FROM flowstone.identity AS i;

-- name: in_use
-- The versions of targets that are in use. Uses current_outputs_pkey and steps_pkey.
SELECT c.asset, c.partition AS partition_key, s.output AS stored, s.id AS step_id
FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
JOIN flowstone.current_outputs AS c ON c.asset = t.asset AND c.partition = t.partition
JOIN flowstone.steps AS s ON s.id = c.step_id
WHERE s.output IS NOT NULL
ORDER BY c.asset, c.partition;

-- name: of_steps
-- Committed versions by their steps. Uses steps_pkey.
SELECT s.asset, s.partition AS partition_key, s.output AS stored, s.id AS step_id
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND s.output IS NOT NULL
ORDER BY s.asset, s.partition;

-- name: note
-- Note what is to be published after the commit; a newer publication takes the place of an older one.
-- Uses unpublished_pkey.
INSERT INTO flowstone.unpublished AS u (asset, partition, step_id, token, in_use)
SELECT n.asset, n.partition, n.step_id, n.token, n.in_use
FROM unnest(%(assets)s::text[], %(partitions)s::text[], %(steps)s::bigint[], %(tokens)s::bigint[], %(in_use)s::boolean[])
    AS n (asset, partition, step_id, token, in_use)
ORDER BY n.asset, n.partition
ON CONFLICT (asset, partition) DO UPDATE
SET step_id = excluded.step_id, token = excluded.token, in_use = excluded.in_use, noted_at = excluded.noted_at
WHERE u.token < excluded.token;

-- name: pending
-- What is to be published, the oldest first, of some targets or of all. There are few rows.
SELECT u.asset, u.partition AS partition_key, u.token, i.id::text AS issuer, s.output AS stored, u.in_use, u.noted_at
FROM flowstone.unpublished AS u
JOIN flowstone.steps AS s ON s.id = u.step_id
CROSS JOIN flowstone.identity AS i
WHERE s.output IS NOT NULL AND u.token > %(after)s AND (%(assets)s::text[] IS NULL OR EXISTS (
    SELECT FROM unnest(%(assets)s::text[], %(partitions)s::text[]) AS t (asset, partition)
    WHERE t.asset = u.asset AND t.partition = u.partition
))
ORDER BY u.token
LIMIT %(limit)s;

-- name: done
-- Forget a publication that is visible; one that was noted since stays. Uses unpublished_pkey.
DELETE FROM flowstone.unpublished
WHERE asset = %(asset)s AND partition = %(partition)s AND token = %(token)s;
