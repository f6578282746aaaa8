-- Note that a state of a request was announced; a newer one is still to be announced. Uses checkpoints_pkey.
UPDATE flowstone.checkpoints SET told = %(state)s WHERE id = %(id)s;
