-- Remove the jobs that would have ended the time of requests that are over. Uses checkpoints_pkey and oban_jobs_pkey.
DELETE FROM public.oban_jobs AS j
USING flowstone.checkpoints AS c
WHERE c.id = ANY(%(ids)s::bigint[]) AND c.state <> 'pending' AND j.id = c.job_id;
