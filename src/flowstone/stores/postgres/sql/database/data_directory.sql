-- Whose server answers on a socket: compared with our own data directory before it is joined. No index.
SHOW data_directory;
