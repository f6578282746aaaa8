from __future__ import annotations

from pathlib import Path

import pytest

from flowstone.protocols import Store
from flowstone.testing.store_conformance import StoreConformance

store = pytest.importorskip("flowstone.stores.postgres.store", reason="the PostgreSQL store is not there yet")


@pytest.mark.both_servers
class TestPostgresStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _database(self, database_url: str, tmp_path: Path) -> None:
        self.url = database_url
        self.directory = tmp_path

    def make_store(self) -> Store:
        return store.PostgresStore.connect(self.url, directory=self.directory)
