-- The requests whose time these jobs end. The jobs name them. Uses oban_jobs_pkey and checkpoints_pkey.
SELECT c.id
FROM public.oban_jobs AS j
JOIN flowstone.checkpoints AS c ON c.job_id = j.id AND c.id::text = j.args ->> 'approval'
WHERE j.id = ANY(%(jobs)s::bigint[]);
