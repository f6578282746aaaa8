from __future__ import annotations

from pathlib import Path

import pytest
from tests.stores.conformance.store import StoreConformance
from tests.stores.reused import SHOP

from flowstone.protocols import Store

store = pytest.importorskip("flowstone.stores.postgres.store", reason="the PostgreSQL store is not there yet")


class TestPostgresStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _database(self, reused_database_url: str, tmp_path: Path) -> None:
        self.url = reused_database_url
        self.directory = tmp_path

    def make_store(self) -> Store:
        return store.PostgresStore.connect(self.url, directory=self.directory)


@pytest.mark.older_server
class TestPostgresStoreInAProject(StoreConformance):
    """In a project and on an older server at once: two suites in the time of one."""

    @pytest.fixture(autouse=True)
    def _database(self, reused_url_of_a_project: str, tmp_path: Path) -> None:
        self.url = reused_url_of_a_project
        self.directory = tmp_path

    def make_store(self) -> Store:
        return store.PostgresStore.connect(self.url, directory=self.directory, project=SHOP)
