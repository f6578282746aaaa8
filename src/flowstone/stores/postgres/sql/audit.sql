-- The audit log: it only grows.

-- name: note
-- Write what is being done, in the transaction that does it. Uses audit_pkey.
INSERT INTO flowstone.audit (actor, via, action, subject, details)
VALUES (%(actor)s, %(via)s, %(action)s, %(subject)s, %(details)s);

-- name: lines
-- The newest lines, of an actor, a range of actions, a subject or a time, before a position. Uses audit_pkey,
-- audit_of_actor, audit_of_action, audit_of_subject or audit_of_time.
SELECT id, at, actor, action, subject, details, via
FROM flowstone.audit
WHERE (%(actor)s::text IS NULL OR actor = %(actor)s)
    AND (%(first_action)s::text IS NULL OR action COLLATE "C" BETWEEN %(first_action)s AND %(last_action)s)
    AND (%(subject)s::text IS NULL OR subject = %(subject)s)
    AND (%(since)s::timestamptz IS NULL OR at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
    AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s;
