-- Makes the database of a fresh embedded server. No index.
CREATE DATABASE {name};
