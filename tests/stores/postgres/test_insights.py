from __future__ import annotations

from pathlib import Path

import pytest
from tests.stores.conformance.insights import InsightsConformance
from tests.stores.conformance.run_insights import RunInsightsTests

from flowstone.protocols import Store
from flowstone.stores.postgres.store import PostgresStore


class TestPostgresInsights(InsightsConformance, RunInsightsTests):
    @pytest.fixture(autouse=True)
    def _database(self, reused_database_url: str, tmp_path: Path) -> None:
        self.url = reused_database_url
        self.directory = tmp_path

    def make_store(self) -> Store:
        return PostgresStore.connect(self.url, directory=self.directory)
