-- A private copy of the migrated template for one test. No index. Its files are copied, because writing them to the
-- log too takes twice as long; a server before version 15 always does so and has no word for it.
CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY;
