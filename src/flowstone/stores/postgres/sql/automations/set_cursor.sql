-- Set a cursor by hand; an evaluation at work loses its right. Uses automations_pkey.
UPDATE flowstone.automations
SET cursor = %(cursor)s, token = 0, taken_until = NULL
WHERE kind = %(kind)s AND name = %(name)s;
