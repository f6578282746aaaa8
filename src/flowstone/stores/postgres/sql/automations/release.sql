-- End the right to evaluate without a conclusion: the automation is due as it was. Uses automations_pkey.
UPDATE flowstone.automations
SET token = 0, taken_until = NULL
WHERE kind = %(kind)s AND name = %(name)s AND token = %(token)s;
