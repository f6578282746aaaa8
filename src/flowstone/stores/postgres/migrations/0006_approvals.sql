-- 0006_approvals: placeholder.
DO $$ BEGIN END $$;
