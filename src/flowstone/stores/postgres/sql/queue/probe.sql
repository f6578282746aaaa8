-- A job as FlowStone writes it, at the edges of what it writes; inserted and rolled back, to see whether the table takes
-- it: checks, triggers, policies and privileges of others show only so.
INSERT INTO public.oban_jobs (
    id, state, queue, worker, priority, attempt, max_attempts, args, meta, tags, scheduled_at
)
OVERRIDING SYSTEM VALUE
VALUES (
    pg_catalog.nextval(pg_catalog.pg_get_serial_sequence('public.oban_jobs', 'id')),
    %(state)s::public.oban_job_state, 'flowstone-probe', 'flowstone.executors.oban.job.StepWorker', %(priority)s,
    %(attempt)s, %(max_attempts)s, '{"step": 0}', '{"run": "probe"}', ARRAY['probe'],
    pg_catalog.timezone('UTC', pg_catalog.clock_timestamp())
)
RETURNING id;
