-- 0005_dynamic_partitions: placeholder.
DO $$ BEGIN END $$;
