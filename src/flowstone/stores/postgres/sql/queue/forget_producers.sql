-- Remove what workers of ours that are gone have left of themselves; Oban leaves that to a leader, which we do not elect.
DELETE FROM public.oban_producers
WHERE node LIKE 'flowstone@%' AND updated_at < pg_catalog.timezone('UTC', pg_catalog.clock_timestamp()) - interval '1 minute';
