-- What pages ask about assets and their partitions.

-- name: committed
-- Partitions of an asset with a version in use, as lines of one text: 100,000 rows take twice as long. Reads
-- current_outputs_pkey alone.
SELECT pg_catalog.string_agg(c.partition, E'\n') FROM flowstone.current_outputs AS c WHERE c.asset = %(asset)s;

-- name: failed
-- Partitions whose last attempt failed, and that neither a later version nor an invalidation has replaced since. A version
-- that was restored is older than the failure, and in use since a later time; what was in use before a step was placed is
-- in use for longer than that, by the same clock. Uses steps_failed, current_outputs_pkey,
-- steps_invalidated and steps_pkey.
SELECT pg_catalog.string_agg(f.partition, E'\n')
FROM (
    SELECT s.partition, pg_catalog.max(s.id) AS id
    FROM flowstone.steps AS s
    WHERE s.asset = %(asset)s AND s.state IN ('failed', 'upstream_failed') AND NOT s.is_item
    GROUP BY s.partition
) AS f
LEFT JOIN flowstone.current_outputs AS c ON c.asset = %(asset)s AND c.partition = f.partition
LEFT JOIN (
    SELECT i.partition, pg_catalog.max(i.id) AS id
    FROM flowstone.steps AS i
    WHERE i.asset = %(asset)s AND i.invalidated_at IS NOT NULL
    GROUP BY i.partition
) AS v ON v.partition = f.partition
WHERE (v.id IS NULL OR v.id < f.id)
    AND (c.step_id IS NULL OR (c.step_id < f.id AND c.committed_at < (
        SELECT o.placed_at FROM flowstone.steps AS o WHERE o.id = f.id
    )));

-- name: active
-- Partitions with a step that is not over. Uses steps_one_active.
SELECT pg_catalog.string_agg(s.partition, E'\n')
FROM flowstone.steps AS s
WHERE s.asset = %(asset)s AND s.finished_at IS NULL AND NOT s.is_item;

-- name: unstarted
-- Unstarted partitions of large backfills. Reads the open ranges, a row for each thousand of them or so.
SELECT pg_catalog.string_agg(pg_catalog.array_to_string(g.partitions[g.begun + 1 :], E'\n'), E'\n')
FROM flowstone.ranges AS g
WHERE g.asset = %(asset)s AND g.is_open;

-- name: counts
-- How many partitions of each asset are in which state. Reads current_outputs, the entries of steps_failed,
-- steps_invalidated and steps_one_active, and the open ranges; not the steps.
WITH committed AS (
    SELECT c.asset, pg_catalog.count(*) AS number, pg_catalog.max(c.committed_at) AS committed_at
    FROM flowstone.current_outputs AS c
    GROUP BY c.asset
), invalidated AS (
    SELECT i.asset, i.partition, pg_catalog.max(i.id) AS id
    FROM flowstone.steps AS i
    WHERE i.invalidated_at IS NOT NULL
    GROUP BY i.asset, i.partition
), failed AS (
    SELECT f.asset, pg_catalog.count(*) AS number
    FROM (
        SELECT s.asset, s.partition, pg_catalog.max(s.id) AS id
        FROM flowstone.steps AS s
        WHERE s.state IN ('failed', 'upstream_failed') AND NOT s.is_item
        GROUP BY s.asset, s.partition
    ) AS f
    LEFT JOIN flowstone.current_outputs AS c ON c.asset = f.asset AND c.partition = f.partition
    LEFT JOIN invalidated AS v ON v.asset = f.asset AND v.partition = f.partition
    WHERE (v.id IS NULL OR v.id < f.id)
        AND (c.step_id IS NULL OR (c.step_id < f.id AND c.committed_at < (
            SELECT o.placed_at FROM flowstone.steps AS o WHERE o.id = f.id
        )))
    GROUP BY f.asset
), active AS (
    SELECT s.asset, pg_catalog.count(*) AS number
    FROM flowstone.steps AS s
    WHERE s.finished_at IS NULL AND NOT s.is_item
    GROUP BY s.asset
), unstarted AS (
    SELECT g.asset, pg_catalog.sum(g.total - g.begun)::bigint AS number
    FROM flowstone.ranges AS g
    WHERE g.is_open
    GROUP BY g.asset
)
SELECT asset, coalesce(c.number, 0) AS committed, coalesce(f.number, 0) AS failed, coalesce(a.number, 0) AS active,
    coalesce(u.number, 0) AS unstarted, c.committed_at
FROM committed AS c
FULL JOIN failed AS f USING (asset)
FULL JOIN active AS a USING (asset)
FULL JOIN unstarted AS u USING (asset)
ORDER BY asset;

-- name: stale
-- Versions in use of an asset that would come out differently now: an input has another version in use, with other
-- content, or none; or the code has changed. Of a version that a person restored only what came after that counts, and not
-- the code of the version that it replaced. Uses current_outputs_pkey, lineage_pkey, steps_pkey, output_changes_of_target.
SELECT c.partition AS partition_key, o.upstream, o.upstream_key
FROM flowstone.current_outputs AS c
JOIN flowstone.steps AS s ON s.id = c.step_id
LEFT JOIN flowstone.output_changes AS h ON h.asset = c.asset AND h.partition = c.partition AND h.kind = 'restored'
    AND h.at = c.committed_at
LEFT JOIN flowstone.steps AS b ON b.id = h.before
LEFT JOIN LATERAL (
    SELECT u.asset AS upstream, u.partition AS upstream_key
    FROM flowstone.lineage AS l
    JOIN flowstone.steps AS u ON u.id = l.upstream_step_id AND NOT u.is_item
    LEFT JOIN flowstone.current_outputs AS k ON k.asset = u.asset AND k.partition = u.partition
    LEFT JOIN flowstone.steps AS n ON n.id = k.step_id AND k.step_id <> u.id
    WHERE l.step_id = c.step_id AND (
        k.step_id IS NULL
        OR (n.id IS NOT NULL AND (h.id IS NULL OR k.committed_at > h.at) AND coalesce(
            n.output ->> 'content_hash' <> u.output ->> 'content_hash', true
        ))
    )
    LIMIT 1
) AS o ON true
WHERE c.asset = %(asset)s
    AND (o.upstream IS NOT NULL OR (
        s.code_version IS DISTINCT FROM coalesce(%(code_version)s, s.code_version)
        AND (h.id IS NULL OR b.code_version IS DISTINCT FROM %(code_version)s)
    ))
LIMIT %(limit)s;

-- name: failures
-- The newest partitions of some assets whose last attempt failed, some of each; the first three with their errors.
-- Uses steps_failed, current_outputs_pkey and steps_invalidated. LIMIT 1 and OFFSET 0 keep the questions about a failure from
-- becoming joins, which read all failures of an asset before they give the newest.
SELECT f.asset, f.partition AS partition_key, f.id AS step_id, f.run_id, f.state,
    CASE WHEN f.number <= 3 THEN pg_catalog.right(f.error, 4000) END AS error, f.error_type,
    pg_catalog.left(f.reason, 1000) AS reason, f.finished_at
FROM unnest(%(assets)s::text[]) AS n (asset)
CROSS JOIN LATERAL (
    SELECT s.*, pg_catalog.row_number() OVER (ORDER BY s.id DESC) AS number
    FROM flowstone.steps AS s
    LEFT JOIN LATERAL (
        SELECT u.step_id, u.committed_at FROM flowstone.current_outputs AS u
        WHERE u.asset = s.asset AND u.partition = s.partition
        LIMIT 1
    ) AS c ON true
    WHERE s.asset = n.asset AND s.state IN ('failed', 'upstream_failed') AND NOT s.is_item
        AND (c.step_id IS NULL OR (c.step_id < s.id AND c.committed_at < s.placed_at))
        AND NOT EXISTS (
            SELECT FROM flowstone.steps AS o
            WHERE o.asset = s.asset AND o.id > greatest(s.id, c.step_id) AND o.partition = s.partition
                AND o.state IN ('failed', 'upstream_failed') AND NOT o.is_item
            OFFSET 0
        )
        AND NOT EXISTS (
            SELECT FROM flowstone.steps AS v
            WHERE v.asset = s.asset AND v.id > s.id AND v.partition = s.partition AND v.invalidated_at IS NOT NULL
        )
    ORDER BY s.id DESC
    LIMIT %(limit)s
) AS f
ORDER BY f.id DESC;

-- name: health
-- How long versions of some assets usually take, by those of their last nine partitions, and how many of the newest results
-- of their checks are failures, counted up to 20. Uses current_outputs_pkey, steps_pkey, check_results_failed and
-- check_results_latest.
SELECT n.asset, u.usual_seconds, coalesce(f.failed_checks, 0)::integer AS failed_checks
FROM unnest(%(assets)s::text[]) WITH ORDINALITY AS n (asset, position)
CROSS JOIN LATERAL (
    SELECT percentile_cont(0.5) WITHIN GROUP (
        ORDER BY greatest(0.0, pg_catalog.date_part('epoch', s.finished_at - s.started_at))
    ) AS usual_seconds
    FROM (
        SELECT c.step_id FROM flowstone.current_outputs AS c WHERE c.asset = n.asset ORDER BY c.partition DESC LIMIT 9
    ) AS c
    JOIN flowstone.steps AS s ON s.id = c.step_id
) AS u
CROSS JOIN LATERAL (
    SELECT pg_catalog.count(*) AS failed_checks
    FROM (
        SELECT
        FROM flowstone.check_results AS r
        WHERE r.asset = n.asset AND NOT r.passed AND NOT EXISTS (
            SELECT FROM flowstone.check_results AS o
            WHERE o.asset = r.asset AND o.partition = r.partition AND o.check_name = r.check_name AND o.id > r.id
        )
        ORDER BY r.id DESC
        LIMIT 20
    ) AS newest
) AS f
ORDER BY n.position;
