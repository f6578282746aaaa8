-- What a run is about: config, tags, metadata, the parts it uses by name; and the assets that were asked for.
ALTER TABLE flowstone.runs ADD COLUMN details jsonb, ADD COLUMN assets text[];

CREATE INDEX runs_tags ON flowstone.runs USING gin ((details -> 'tags')) WHERE details ? 'tags';

-- Stands for the config, resources and IO manager with which a step computes its value: what was made with another one
-- is neither joined nor reused when a request names one.
ALTER TABLE flowstone.steps ADD COLUMN config_hash text;

ALTER TABLE flowstone.ranges ADD COLUMN config_hash text, ADD COLUMN exact boolean NOT NULL DEFAULT false;
