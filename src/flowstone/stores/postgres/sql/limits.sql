-- Concurrency limits, rates and circuit breakers.

-- name: lock
-- Make sure that some limits have rows, and lock these in the order of their names. Uses limits_pkey.
INSERT INTO flowstone.limits AS l (name)
SELECT DISTINCT n.name FROM unnest(%(names)s::text[]) AS n (name)
ORDER BY n.name
ON CONFLICT (name) DO UPDATE SET starts = l.starts
RETURNING l.name, l.starts;

-- name: count
-- Slots taken of some limits, and the time; asked after locking them, so that it sees what was committed before.
-- Uses slots_pkey.
SELECT n.name, pg_catalog.count(s.step_id) AS taken,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) AS now
FROM unnest(%(names)s::text[]) AS n (name)
LEFT JOIN flowstone.slots AS s ON s.limit_name = n.name
GROUP BY n.name;

-- name: held
-- Limits of which these steps hold slots, and breakers that the end of one may change. Uses slots_of_step and
-- breakers_pkey.
SELECT limit_name FROM flowstone.slots WHERE step_id = ANY(%(steps)s::bigint[])
UNION
SELECT name FROM flowstone.breakers WHERE name = ANY(%(breakers)s::text[]) AND failures > 0
ORDER BY 1;

-- name: free
-- Give slots back. Uses slots_of_step.
DELETE FROM flowstone.slots WHERE step_id = ANY(%(steps)s::bigint[]) RETURNING limit_name, step_id;

-- name: take
-- Take slots for steps that start. Uses slots_pkey.
INSERT INTO flowstone.slots (limit_name, step_id)
SELECT t.name, t.step_id FROM unnest(%(names)s::text[], %(steps)s::bigint[]) AS t (name, step_id)
ON CONFLICT DO NOTHING;

-- name: fill
-- Remember when the latest steps under a limit in time started. Uses limits_pkey.
UPDATE flowstone.limits SET starts = %(starts)s WHERE name = %(name)s;

-- name: park
-- Give attempts back that a limit does not let start: they wait for a slot, or for a time. Uses steps_pkey.
UPDATE flowstone.steps AS s
SET state = CASE WHEN p.delay_seconds IS NULL THEN 'pending' ELSE 'scheduled' END,
    attempt = s.attempt - 1,
    token = 0,
    parked_for = CASE WHEN p.delay_seconds IS NULL THEN p.name END,
    reason = p.reason,
    scheduled_at = CASE WHEN p.delay_seconds IS NULL THEN s.scheduled_at
        ELSE pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => p.delay_seconds) END
FROM unnest(%(steps)s::bigint[], %(names)s::text[], %(reasons)s::text[], %(delays)s::double precision[])
    AS p (step_id, name, reason, delay_seconds)
WHERE s.id = p.step_id;

-- name: park_jobs
-- Let the jobs of parked steps rest; suspended is a state that Oban's stager leaves alone. Uses oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET state = (CASE WHEN p.delay_seconds IS NULL THEN 'suspended' ELSE 'scheduled' END)::public.oban_job_state,
    attempt = greatest(0, j.attempt - 1),
    scheduled_at = CASE WHEN p.delay_seconds IS NULL THEN j.scheduled_at
        ELSE pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
            + pg_catalog.make_interval(secs => p.delay_seconds) END
FROM unnest(%(jobs)s::bigint[], %(delays)s::double precision[]) AS p (job_id, delay_seconds)
WHERE j.id = p.job_id;

-- name: stale
-- Remove slots of steps that are not at work. Uses slots_pkey and steps_pkey.
DELETE FROM flowstone.slots AS t
USING flowstone.steps AS s
WHERE s.id = t.step_id AND s.state NOT IN ('running', 'cancelling')
RETURNING t.limit_name;

-- name: overdue
-- Limits with free slots and steps that wait for one, and how many may try. What was woken may be unable to start: its
-- queue or run was paused, no worker serves its queue, or it was cancelled. Uses steps_parked and slots_pkey.
SELECT p.name, least(p.waiting, p.maximum - p.taken) AS number
FROM (
    SELECT s.parked_for AS name, pg_catalog.count(*) AS waiting,
        -- breakers are texts; see breakers/idle
        pg_catalog.max(CASE WHEN pg_catalog.jsonb_typeof(s.limits -> s.parked_for) = 'number'
            THEN (s.limits ->> s.parked_for)::bigint END) AS maximum,
        (SELECT pg_catalog.count(*) FROM flowstone.slots AS t WHERE t.limit_name = s.parked_for) AS taken
    FROM flowstone.steps AS s
    WHERE s.parked_for IS NOT NULL AND s.state = 'pending'
    GROUP BY s.parked_for
) AS p
WHERE p.taken < p.maximum;

-- name: wake
-- Let the most urgent steps that wait for a limit try again. Uses steps_parked.
WITH chosen AS (
    SELECT s.id
    FROM flowstone.steps AS s
    WHERE s.parked_for = %(name)s AND s.state = 'pending'
    ORDER BY s.priority, s.id
    LIMIT %(number)s
    FOR NO KEY UPDATE OF s
)
UPDATE flowstone.steps AS s
SET parked_for = NULL, reason = NULL
FROM chosen AS c
WHERE s.id = c.id
RETURNING s.job_id, s.queue;

-- name: wake_jobs
-- Make resting jobs available again. Uses oban_jobs_pkey.
UPDATE public.oban_jobs SET state = 'available' WHERE id = ANY(%(jobs)s::bigint[]) AND state = 'suspended';

-- name: read
-- State of breakers; asked after locking their limits. Uses breakers_pkey.
SELECT name, failures, pg_catalog.date_part('epoch', open_until) AS open_until, next_step
FROM flowstone.breakers
WHERE name = ANY(%(names)s::text[]);

-- name: tripped
-- Breakers that are not closed, without a lock: what starts while one opens had started before. Uses breakers_pkey.
SELECT name FROM flowstone.breakers WHERE name = ANY(%(names)s::text[]) AND open_until IS NOT NULL;

-- name: write
-- Keep the state of breakers; the caller holds the locks of their limits. Uses breakers_pkey.
INSERT INTO flowstone.breakers AS b (name, failures, opened_at, open_until, next_step)
SELECT c.name, c.failures, CASE WHEN c.open_until IS NOT NULL THEN pg_catalog.clock_timestamp() END,
    pg_catalog.to_timestamp(c.open_until), c.next_step
FROM pg_catalog.jsonb_to_recordset(%(circuits)s)
    AS c (name text, failures integer, open_until double precision, next_step bigint)
ON CONFLICT (name) DO UPDATE
SET failures = excluded.failures,
    -- since the first failure that opened it, whatever was tried in between
    opened_at = CASE WHEN excluded.open_until IS NOT NULL THEN coalesce(b.opened_at, excluded.opened_at) END,
    open_until = excluded.open_until,
    next_step = excluded.next_step;

-- name: idle
-- Breakers for which steps rest although one may be tried, or all may start, and how many are to try: the step that
-- was to try may be cancelled or paused. Uses steps_parked, breakers_pkey and slots_pkey.
SELECT p.name, CASE WHEN b.open_until IS NULL THEN p.waiting ELSE 1 END AS number
FROM (
    SELECT s.parked_for AS name, pg_catalog.count(*) AS waiting
    FROM flowstone.steps AS s
    WHERE s.parked_for IS NOT NULL AND s.state = 'pending'
        AND pg_catalog.jsonb_typeof(s.limits -> s.parked_for) = 'string'
    GROUP BY s.parked_for
) AS p
LEFT JOIN flowstone.breakers AS b ON b.name = p.name
WHERE b.open_until IS NULL
    OR (
        b.open_until <= pg_catalog.clock_timestamp()
        AND NOT EXISTS (SELECT FROM flowstone.slots AS t WHERE t.limit_name = p.name)
    );
