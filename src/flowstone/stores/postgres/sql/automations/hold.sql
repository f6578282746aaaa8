-- Lock an automation for its conclusion; returns nothing when another worker has the right. Uses automations_pkey.
SELECT by_hand
FROM flowstone.automations
WHERE kind = %(kind)s AND name = %(name)s AND token = %(token)s AND token <> 0
FOR UPDATE;
