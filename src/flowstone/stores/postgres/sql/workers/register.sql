-- A worker says that it is there. Uses workers_pkey.
INSERT INTO flowstone.workers (id, kind, host, pid, queues, lease_seconds)
VALUES (%(id)s, %(kind)s, %(host)s, %(pid)s, %(queues)s, %(lease_seconds)s);
