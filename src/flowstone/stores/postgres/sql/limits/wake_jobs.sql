-- Make resting jobs available again. Uses oban_jobs_pkey.
UPDATE public.oban_jobs SET state = 'available' WHERE id = ANY(%(jobs)s::bigint[]) AND state = 'suspended';
