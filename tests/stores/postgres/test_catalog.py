from __future__ import annotations

import pytest
from tests.stores.conformance.catalog import TargetStatusConformance

from flowstone.protocols import Store
from flowstone.stores.postgres.store import CheckedDatabase, PostgresStore


@pytest.mark.both_servers
class TestPostgresTargetStatuses(TargetStatusConformance):
    @pytest.fixture(autouse=True)
    def _database(self, reused_database_url: str) -> None:
        self.url = reused_database_url

    def make_store(self) -> Store:
        return PostgresStore(CheckedDatabase(self.url))
