"""Approvals in both stores."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.stores.conformance.approvals import ApprovalConformance

from flowstone.protocols import Store
from flowstone.stores.memory import MemoryStore
from flowstone.stores.postgres.store import PostgresStore


class TestMemoryApprovals(ApprovalConformance):
    def make_store(self) -> Store:
        return MemoryStore()


@pytest.mark.both_servers
class TestPostgresApprovals(ApprovalConformance):
    @pytest.fixture(autouse=True)
    def _database(self, reused_database_url: str, tmp_path: Path) -> None:
        self.url = reused_database_url
        self.directory = tmp_path

    def make_store(self) -> Store:
        return PostgresStore.connect(self.url, directory=self.directory)
