-- 0004_automations: placeholder.
DO $$ BEGIN END $$;
