-- Let jobs overtake when a more urgent request joined their steps. Uses oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET priority = u.priority
FROM unnest(%(ids)s::bigint[], %(priorities)s::smallint[]) AS u (id, priority)
WHERE j.id = u.id AND j.state IN ('available', 'scheduled', 'retryable') AND j.priority > u.priority;
