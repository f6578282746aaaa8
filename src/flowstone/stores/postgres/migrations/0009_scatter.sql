-- 0009_scatter: placeholder.
DO $$ BEGIN END $$;
