-- Make room for a version whose storing is retried, and delete one that is no longer requested.
-- Uses the primary keys of both tables.
WITH inline AS (
    DELETE FROM flowstone.output_payloads WHERE version = %(version)s
)
DELETE FROM flowstone.output_chunks WHERE version = %(version)s;
