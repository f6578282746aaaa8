-- Delete large values that no committed or running attempt wants. Uses the primary key of output_chunks.
DELETE FROM flowstone.output_chunks WHERE version = ANY(%(versions)s);
