-- Inputs that a step can do without when they were skipped. The decision of a step that chooses its branches lies in the
-- metadata of its output, where the version is.
ALTER TABLE flowstone.step_edges ADD COLUMN optional boolean NOT NULL DEFAULT false;

-- How many more of its inputs must be skipped until the step is skipped itself; null when no number of them is enough,
-- because there is another input.
ALTER TABLE flowstone.steps ADD COLUMN skips_left integer;
