"""What the PostgreSQL store answers for the first page and the search."""

from __future__ import annotations

from collections.abc import Mapping

from flowstone.core.insights.overview import FoundRun, StaleAsset
from flowstone.protocols.insights import OverviewInsights
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all


class PostgresOverviewInsights(OverviewInsights):
    """Implements `flowstone.protocols.OverviewInsights` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stale_assets(self, code_versions: Mapping[str, str | None], *, limit: int) -> list[StaleAsset]:
        parameters = {
            "assets": list(code_versions),
            "code_versions": list(code_versions.values()),
            "limit": limit,
        }
        with self._database.connection() as connection:
            return fetch_all(connection, StaleAsset, "overview_insights/stale_assets", parameters)

    def find_runs(self, text: str, *, limit: int) -> list[FoundRun]:
        parameters = {"text": text, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, FoundRun, "overview_insights/find_runs", parameters)
