-- List large values after a version, a page at a time. Uses the primary key of output_chunks (chunk 0 of each).
SELECT version FROM flowstone.output_chunks
WHERE chunk = 0 AND version > %(after)s
ORDER BY version
LIMIT %(page_size)s;
