-- Values in PostgreSQL: written in chunks, read, deleted.

-- name: chunked_versions
-- List large values after a version, a page at a time. Uses the primary key of output_chunks (chunk 0 of each).
SELECT version FROM flowstone.output_chunks
WHERE chunk = 0 AND version > %(after)s
ORDER BY version
LIMIT %(page_size)s;

-- name: clear_version
-- Make room for a version whose storing is retried, and delete one that is no longer requested.
-- Uses the primary keys of both tables.
WITH inline AS (
    DELETE FROM flowstone.output_payloads WHERE version = %(version)s
)
DELETE FROM flowstone.output_chunks WHERE version = %(version)s;

-- name: clear_versions
-- Delete versions that are no longer requested. Uses the primary keys of both tables.
WITH inline AS (
    DELETE FROM flowstone.output_payloads WHERE version = ANY(%(versions)s::text[])
)
DELETE FROM flowstone.output_chunks WHERE version = ANY(%(versions)s::text[]);

-- name: delete_versions
-- Delete large values that no committed or running attempt wants. Uses the primary key of output_chunks.
DELETE FROM flowstone.output_chunks WHERE version = ANY(%(versions)s);

-- name: erase_versions
-- Delete versions, whatever they are, and name those that were there. Uses the primary key of output_payloads; of chunks
-- the names end with the tokens of attempts, so all names are compared: there are few, and erasing is rare.
WITH inline AS (
    DELETE FROM flowstone.output_payloads WHERE version = ANY(%(versions)s::text[]) RETURNING version
), chunks AS (
    DELETE FROM flowstone.output_chunks WHERE split_part(version, '.', 1) = ANY(%(versions)s::text[]) RETURNING version
)
SELECT version FROM inline UNION SELECT version FROM chunks;

-- name: find_versions
-- Which of some versions are there. Uses the primary keys of both tables.
SELECT p.version FROM flowstone.output_payloads AS p WHERE p.version = ANY(%(versions)s::text[])
UNION ALL
SELECT c.version FROM flowstone.output_chunks AS c WHERE c.version = ANY(%(versions)s::text[]) AND c.chunk = 0;

-- name: read_chunk
-- Read one chunk of a large value. Uses the primary key of output_chunks.
SELECT payload FROM flowstone.output_chunks WHERE version = %(version)s AND chunk = %(chunk)s;

-- name: read_payload
-- Read a small value that was written by the committing transaction. Uses the primary key of output_payloads.
SELECT payload FROM flowstone.output_payloads WHERE version = %(version)s;

-- name: write_chunk
-- Write one chunk of a large value; the payload is sent in binary.
INSERT INTO flowstone.output_chunks (version, chunk, payload) VALUES (%(version)s, %(chunk)s, %(payload)b);
