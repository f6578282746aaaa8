-- 0010_routes: placeholder.
DO $$ BEGIN END $$;
