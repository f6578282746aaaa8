-- What the first page and the search ask.

-- name: stale_assets
-- Assets with versions in use that would come out differently now, among the last partitions of each in the order of their
-- texts; see asset_insights/stale for what counts. Uses current_outputs_pkey, steps_pkey, lineage_pkey and
-- output_changes_of_target.
SELECT n.asset, pg_catalog.count(*) FILTER (WHERE o.upstream IS NOT NULL OR o.is_other_code) AS number,
    pg_catalog.count(*) AS compared, pg_catalog.max(o.upstream) AS upstream,
    (pg_catalog.array_agg(o.upstream_key ORDER BY o.upstream DESC NULLS LAST))[1] AS upstream_key
FROM unnest(%(assets)s::text[], %(code_versions)s::text[]) AS n (asset, code_version)
CROSS JOIN LATERAL (
    SELECT c.step_id, c.partition, c.committed_at FROM flowstone.current_outputs AS c
    WHERE c.asset = n.asset
    ORDER BY c.partition DESC
    LIMIT %(limit)s
) AS c
JOIN flowstone.steps AS s ON s.id = c.step_id
LEFT JOIN flowstone.output_changes AS h ON h.asset = n.asset AND h.partition = c.partition AND h.kind = 'restored'
    AND h.at = c.committed_at
LEFT JOIN flowstone.steps AS b ON b.id = h.before
CROSS JOIN LATERAL (
    SELECT s.code_version IS DISTINCT FROM coalesce(n.code_version, s.code_version)
            AND (h.id IS NULL OR b.code_version IS DISTINCT FROM n.code_version) AS is_other_code,
        u.upstream, u.upstream_key
    FROM (VALUES (1)) AS one (row)
    LEFT JOIN LATERAL (
        SELECT u.asset AS upstream, u.partition AS upstream_key
        FROM flowstone.lineage AS l
        JOIN flowstone.steps AS u ON u.id = l.upstream_step_id AND NOT u.is_item
        LEFT JOIN flowstone.current_outputs AS k ON k.asset = u.asset AND k.partition = u.partition
        LEFT JOIN flowstone.steps AS w ON w.id = k.step_id AND k.step_id <> u.id
        WHERE l.step_id = c.step_id AND (
            k.step_id IS NULL
            OR (w.id IS NOT NULL AND (h.id IS NULL OR k.committed_at > h.at) AND coalesce(
                w.output ->> 'content_hash' <> u.output ->> 'content_hash', true
            ))
        )
        LIMIT 1
    ) AS u ON true
) AS o
GROUP BY n.asset
HAVING pg_catalog.count(*) FILTER (WHERE o.upstream IS NOT NULL OR o.is_other_code) > 0
ORDER BY n.asset;

-- name: find_runs
-- Runs whose id or selection begins with a text, or that have it as a tag, the newest first. Uses runs_by_id,
-- runs_by_selection and runs_tags.
SELECT r.id, r.kind, pg_catalog.left(r.selection, 200) AS selection, r.state, r.created_at
FROM (
    (
        SELECT b.id FROM flowstone.runs AS b
        WHERE b.id COLLATE "C" >= %(text)s AND b.id COLLATE "C" < %(text)s || U&'\+10FFFF'
        ORDER BY b.id COLLATE "C"
        LIMIT %(limit)s
    )
    UNION
    (
        SELECT s.id FROM flowstone.runs AS s
        WHERE pg_catalog.left(s.selection, 100) COLLATE "C" >= pg_catalog.left(%(text)s, 100)
            AND pg_catalog.left(s.selection, 100) COLLATE "C" < pg_catalog.left(%(text)s, 100) || U&'\+10FFFF'
        ORDER BY pg_catalog.left(s.selection, 100) COLLATE "C" DESC, s.created_at DESC
        LIMIT %(limit)s
    )
    UNION
    (SELECT t.id FROM flowstone.runs AS t WHERE t.tags @> ARRAY[%(text)s::text] LIMIT 1000)
) AS f
JOIN flowstone.runs AS r ON r.id = f.id
ORDER BY r.created_at DESC, r.id
LIMIT %(limit)s;
