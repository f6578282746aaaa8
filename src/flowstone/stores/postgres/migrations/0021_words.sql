-- The words of the glossary: what was announced of a request for approval, steps that ever asked for one, attempts that a
-- lost worker had not started, and steps of ranges that only the same config serves. Names only; nothing is rewritten.
ALTER TABLE flowstone.checkpoints RENAME COLUMN told TO announced;
ALTER TABLE flowstone.checkpoints RENAME COLUMN tell_after TO announce_after;
ALTER INDEX flowstone.checkpoints_untold RENAME TO checkpoints_unannounced;
ALTER TABLE flowstone.steps RENAME COLUMN asked TO has_approvals;
ALTER TABLE flowstone.workers RENAME COLUMN not_begun TO unstarted;
ALTER TABLE flowstone.ranges RENAME COLUMN exact TO same_config;
