-- Read a small value that was written by the committing transaction. Uses the primary key of output_payloads.
SELECT payload FROM flowstone.output_payloads WHERE version = %(version)s;
