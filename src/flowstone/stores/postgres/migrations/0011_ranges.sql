-- 0011_ranges: placeholder.
DO $$ BEGIN END $$;
