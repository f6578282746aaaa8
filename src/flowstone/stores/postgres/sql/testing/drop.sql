-- Removes the database of one test, whoever is still connected. No index.
DROP DATABASE IF EXISTS {name} WITH (FORCE);
