-- Nothing of an asset is current any more. Uses current_outputs_pkey.
DELETE FROM flowstone.current_outputs WHERE asset = %(asset)s;
