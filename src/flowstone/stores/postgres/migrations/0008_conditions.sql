-- 0008_conditions: placeholder.
DO $$ BEGIN END $$;
