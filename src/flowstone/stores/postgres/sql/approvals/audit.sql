-- The newest lines of the audit log. Uses audit_pkey, or audit_of_subject.
SELECT id, at, actor, action, subject, details
FROM flowstone.audit
WHERE %(subject)s::text IS NULL OR subject = %(subject)s
ORDER BY id DESC
LIMIT %(limit)s;
