-- Fencing tokens of attempts that a worker had taken and not begun when it died, as far as that is known: they are given
-- back.
ALTER TABLE flowstone.workers ADD COLUMN not_begun bigint[];
