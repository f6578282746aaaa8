-- A worker says that it is there, and what it knows. Uses workers_pkey.
INSERT INTO flowstone.workers (id, kind, host, pid, queues, lease_seconds, assets)
VALUES (%(id)s, %(kind)s, %(host)s, %(pid)s, %(queues)s, %(lease_seconds)s, %(assets)s);
