-- Delete runs that ended long ago and have no steps left. Uses steps_of_run, ranges_of_run and scatters_pkey.
WITH old AS (
    SELECT r.id
    FROM flowstone.runs AS r
    WHERE r.state <> 'running'
        AND r.finished_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %(older_than_seconds)s)
        AND NOT EXISTS (SELECT FROM flowstone.steps AS s WHERE s.run_id = r.id)
        AND NOT EXISTS (SELECT FROM flowstone.run_joins AS j WHERE j.run_id = r.id)
), ranges AS (
    DELETE FROM flowstone.ranges AS g USING old WHERE g.run_id = old.id
), scatters AS (
    DELETE FROM flowstone.scatters AS c USING old WHERE c.run_id = old.id
)
DELETE FROM flowstone.runs AS r USING old WHERE r.id = old.id;
