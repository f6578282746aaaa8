-- A private copy of the migrated template for one test. No index.
CREATE DATABASE {name} TEMPLATE {template};
