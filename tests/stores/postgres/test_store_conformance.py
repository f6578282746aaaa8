from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stores.conformance.store import StoreConformance

from flowstone.core.project import Project
from flowstone.protocols import Store
from flowstone.stores.postgres.database import Database
from flowstone.testing.postgres import TemporaryServer

store = pytest.importorskip("flowstone.stores.postgres.store", reason="the PostgreSQL store is not there yet")


class TestPostgresStore(StoreConformance):
    @pytest.fixture(autouse=True)
    def _database(self, database_url: str, tmp_path: Path) -> None:
        self.url = database_url
        self.directory = tmp_path

    def make_store(self) -> Store:
        return store.PostgresStore.connect(self.url, directory=self.directory)


SHOP = Project("shop")


@pytest.fixture(scope="session")
def of_a_project(server: TemporaryServer) -> Iterator[str]:
    """A database without tables of the default project: whatever forgets its project fails there."""
    with server.empty_database() as dsn:
        store.upgrade(Database(dsn, project=SHOP))
        yield dsn


@pytest.mark.older_server
class TestPostgresStoreInAProject(StoreConformance):
    """In a project and on an older server at once: two suites in the time of one."""

    @pytest.fixture(autouse=True)
    def _database(self, server: TemporaryServer, of_a_project: str, tmp_path: Path) -> Iterator[None]:
        self.directory = tmp_path
        with server.clone(of_a_project) as self.url:
            yield

    def make_store(self) -> Store:
        return store.PostgresStore.connect(self.url, directory=self.directory, project=SHOP)
