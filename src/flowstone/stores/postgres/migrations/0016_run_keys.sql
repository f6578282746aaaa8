-- Run keys that people let trigger again: when that was said, and how often a key has triggered.
ALTER TABLE flowstone.run_keys ADD COLUMN times integer NOT NULL DEFAULT 1, ADD COLUMN forgotten_at timestamptz;
CREATE INDEX run_keys_newest ON flowstone.run_keys (kind, name, used_at DESC);
