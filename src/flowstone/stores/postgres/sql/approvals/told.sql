-- Note that a state of a request was told; a newer one is still to be told. Uses checkpoints_pkey.
UPDATE flowstone.checkpoints SET told = %(state)s WHERE id = %(id)s;
