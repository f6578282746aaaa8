-- Whether items of an earlier run of a target were cancelled and have not ended yet: their keys are taken so long.
-- Uses steps_of_target, scatters_step_id_key, runs_pkey.
SELECT EXISTS (
    SELECT
    FROM flowstone.steps AS s
    JOIN flowstone.steps AS o ON o.asset = s.asset AND o.partition = s.partition AND o.id < s.id
    JOIN flowstone.scatters AS c ON c.step_id = o.id
    JOIN flowstone.runs AS r ON r.id = c.run_id
    WHERE s.id = %(step_id)s AND r.state = 'running'
);
