-- When a committed version was taken out of use; its record stays, and its history shows it.
ALTER TABLE flowstone.steps ADD COLUMN invalidated_at timestamptz;
