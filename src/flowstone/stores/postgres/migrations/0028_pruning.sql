-- What made pruning slow. Nothing is rewritten, and the locks are held for a moment.
--
-- The one foreign key of the schema asked its table about each deleted step; `control/prune_steps` deletes both together
-- now, as with everything else that refers to steps.
ALTER TABLE flowstone.unpublished DROP CONSTRAINT unpublished_step_id_fkey;
-- Mostly one row for each target of which a version was pruned, updated whenever the next one is: in its page, where no
-- index has to change.
ALTER TABLE flowstone.output_changes SET (fillfactor = 70);
