from __future__ import annotations

import pytest

from flowstone.stores.postgres.sql import load_sql


def test_a_statement_is_loaded_by_name():
    assert load_sql("migrations/installed").startswith("-- ")


@pytest.mark.parametrize("name", ["migrations/nothing", "../database/create", "create", "/etc/passwd", ""])
def test_other_names_are_refused(name):
    with pytest.raises(LookupError):
        load_sql(name)
