"""Publishing with a commit, on both stores; in a project and on the system's server as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stores.conformance.publications import PublicationTests, TransactionalPublicationTests

from flowstone.core.project import Project
from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import PostgresStore, upgrade


class TestMemoryPublications(PublicationTests):
    def make_store(self) -> Store:
        return MemoryStore()


class TestPostgresPublications(TransactionalPublicationTests):
    @pytest.fixture(autouse=True)
    def _database(self, reused_database_url: str, tmp_path: Path) -> None:
        self.url, self.directory, self.project = reused_database_url, tmp_path, Project()

    def make_store(self) -> Store:
        return PostgresStore.connect(self.url, directory=self.directory, project=self.project)

    @pytest.mark.older_server
    def test_in_a_project_on_an_older_server(self, empty_database_url: str, tmp_path: Path) -> None:
        shop = Project("shop")
        upgrade(Database(empty_database_url, project=shop))
        store = PostgresStore.connect(empty_database_url, directory=tmp_path, project=shop)
        try:
            assert store.publications.pending() == []
        finally:
            store.close()
