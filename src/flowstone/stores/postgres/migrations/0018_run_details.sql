-- What a run is about: config, tags, metadata, the parts it uses by name; and the assets that were asked for.
-- The details are json, not jsonb, which would bring large floats back as whole numbers and keys in another order.
ALTER TABLE flowstone.runs ADD COLUMN details json, ADD COLUMN tags text[], ADD COLUMN assets text[];

CREATE INDEX runs_tags ON flowstone.runs USING gin (tags) WHERE tags IS NOT NULL;

-- Stands for the config, resources and IO manager with which a step computes its value: what was made with another one
-- is neither joined nor reused when a request names one.
ALTER TABLE flowstone.steps ADD COLUMN config_hash text;

ALTER TABLE flowstone.ranges ADD COLUMN config_hash text, ADD COLUMN exact boolean NOT NULL DEFAULT false;
