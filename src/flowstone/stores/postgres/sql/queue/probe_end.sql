-- The rest of what is done to a job, to the same end as `queue/probe`.
UPDATE public.oban_jobs
SET state = 'discarded',
    attempted_at = scheduled_at,
    attempted_by = ARRAY['flowstone', 'probe'],
    errors = errors || '{"attempt": 1, "error": "probe"}'::jsonb,
    discarded_at = scheduled_at
WHERE id = %(id)s;
