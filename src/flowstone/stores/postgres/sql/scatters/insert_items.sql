-- Make steps of new items, in one statement. What an earlier scatter has a value for, from the same item, is reused;
-- of the others the first get a job each, as far as the window has room. Uses steps_of_target and scatter_items_pkey.
WITH given AS (
    SELECT g.position, g.partition, g.item, o.output_step, o.output, pg_catalog.nextval('flowstone.step_ids') AS id,
        pg_catalog.row_number() OVER (PARTITION BY o.output_step IS NULL ORDER BY g.position) AS number
    FROM pg_catalog.jsonb_to_recordset(%(items)s) AS g (position bigint, partition text, item text)
    LEFT JOIN LATERAL (
        SELECT s.output_step, s.output
        FROM flowstone.steps AS s
        JOIN flowstone.scatter_items AS i ON i.step_id = s.id AND i.item = g.item
        WHERE s.asset = %(asset)s AND s.partition = g.partition AND s.run_id = %(previous)s
            AND s.state IN ('completed', 'reused')
        LIMIT 1
    ) AS o ON true
), placed AS (
    INSERT INTO flowstone.steps (
        id, run_id, asset, partition, state, priority, queue, max_attempts, forced, job_id, output_step, output,
        code_version, created_at, limits, is_item, finished_at
    )
    SELECT g.id, %(run_id)s, %(asset)s, g.partition, CASE WHEN g.output_step IS NULL THEN 'pending' ELSE 'reused' END,
        %(priority)s, %(queue)s, %(max_attempts)s, true,
        CASE WHEN g.output_step IS NULL AND g.number <= %(room)s
            THEN pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')) END,
        g.output_step, g.output, %(code_version)s, pg_catalog.clock_timestamp(), %(limits)s, true,
        CASE WHEN g.output_step IS NOT NULL THEN pg_catalog.clock_timestamp() END
    FROM given AS g
    ORDER BY g.position
    RETURNING id, job_id, finished_at
), itemed AS (
    INSERT INTO flowstone.scatter_items (step_id, run_id, position, token, item)
    SELECT g.id, %(run_id)s, g.position, %(token)s, g.item
    FROM given AS g
)
SELECT id, job_id, finished_at IS NULL AS is_open FROM placed ORDER BY id;
