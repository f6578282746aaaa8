-- What Fatal(..., data=...) said of the failure, for programs.
ALTER TABLE flowstone.steps ADD COLUMN error_data jsonb;
