-- Remember when the latest steps under a limit in time started. Uses limits_pkey.
UPDATE flowstone.limits SET starts = %(starts)s WHERE name = %(name)s;
