-- 0007_checks: placeholder.
DO $$ BEGIN END $$;
