-- Limits of which these steps hold slots, and breakers that the end of one may change. Uses slots_of_step and
-- breakers_pkey.
SELECT limit_name FROM flowstone.slots WHERE step_id = ANY(%(steps)s::bigint[])
UNION
SELECT name FROM flowstone.breakers WHERE name = ANY(%(breakers)s::text[]) AND failures > 0
ORDER BY 1;
