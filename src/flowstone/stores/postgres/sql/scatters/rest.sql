-- Let the jobs of steps rest while their items run; suspended is a state that Oban's stager leaves alone.
-- Uses steps_pkey and oban_jobs_pkey.
UPDATE public.oban_jobs AS j
SET state = 'suspended'
FROM flowstone.steps AS s
WHERE s.id = ANY(%(steps)s::bigint[]) AND j.id = s.job_id AND s.state = 'waiting';
