"""The benchmark of fan-out, smaller: many items on real workers, some fail, memory stays flat."""

from __future__ import annotations

import pytest
from benchmarks.scatter import measure, table


@pytest.mark.slow
def test_two_thousand_items(empty_database_url: str) -> None:
    found = measure(empty_database_url, 2000)
    assert (found.items, found.failed, found.allowed) == (2000, 40, 100)
    assert "40 : 100" in table(found)
    for before, after in (*found.worker_bytes, found.client_bytes):
        assert after - before < 40 * 2**20
