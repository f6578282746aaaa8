-- Note that a state of a request was announced; a newer one is still to be announced. Uses checkpoints_pkey.
UPDATE flowstone.checkpoints SET announced = %(state)s WHERE id = %(id)s;
