-- Record a run; the same id again changes nothing. Uses runs_pkey.
INSERT INTO flowstone.runs (
    id, kind, selection, executor, durable, driver, priority, max_concurrency, watched, deps_timeout_seconds,
    created_at, retry_of, details, tags, assets, shapes, keys
)
VALUES (
    %(id)s, %(kind)s, %(selection)s, %(executor)s, %(durable)s, %(driver)s, %(priority)s, %(max_concurrency)s,
    %(watched)s, %(deps_timeout_seconds)s, %(created_at)s, %(retry_of)s,
    %(details)s, %(tags)s, %(assets)s, %(shapes)s, %(keys)s
)
ON CONFLICT (id) DO UPDATE SET watched = runs.watched OR excluded.watched
RETURNING durable, max_concurrency, xmax = 0 AS is_new;
