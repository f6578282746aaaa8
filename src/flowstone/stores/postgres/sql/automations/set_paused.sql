-- Pause or resume an automation; returns a row when that changed anything. Uses automations_pkey.
UPDATE flowstone.automations
SET paused = %(paused)s
WHERE kind = %(kind)s AND name = %(name)s AND paused <> %(paused)s
RETURNING name;
