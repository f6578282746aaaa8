-- Write one chunk of a large value; the payload is sent in binary.
INSERT INTO flowstone.output_chunks (version, chunk, payload) VALUES (%(version)s, %(chunk)s, %(payload)b);
