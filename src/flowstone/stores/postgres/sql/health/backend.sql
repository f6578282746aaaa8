-- The process of the server that answers: poolers make up another one when a client connects.
SELECT pg_catalog.pg_backend_pid();
