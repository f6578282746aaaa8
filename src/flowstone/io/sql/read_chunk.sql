-- Read one chunk of a large value. Uses the primary key of output_chunks.
SELECT payload FROM flowstone.output_chunks WHERE version = %(version)s AND chunk = %(chunk)s;
