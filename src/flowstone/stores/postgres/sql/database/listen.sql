-- Subscribes this session to one channel; LISTEN takes no bound parameter, the name is quoted. No index.
LISTEN {channel};
