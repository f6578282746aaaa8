"""What the PostgreSQL store answers for people who watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowstone.core.approval import Approval
from flowstone.core.automation.record import AutomationId, TickRecord
from flowstone.core.insights.overview import FoundRun, PoolUse, Pulse, StaleAsset, TableSize
from flowstone.core.step import CheckRecord
from flowstone.protocols.insights import AutomationInsights, OverviewInsights
from flowstone.stores.postgres.asset_insights import PostgresAssetInsights
from flowstone.stores.postgres.automations import TickRow
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.fleet_insights import PostgresFleetInsights
from flowstone.stores.postgres.run_insights import PostgresRunInsights
from flowstone.stores.postgres.sql import fetch_all, fetch_one, fetch_value


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


class PostgresAutomationInsights(AutomationInsights):
    """Implements `flowstone.protocols.AutomationInsights` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ticks(self, automations: Sequence[AutomationId], *, each: int) -> list[TickRecord]:
        kinds, names = [one.kind for one in automations], [one.name for one in automations]
        parameters = {"kinds": kinds, "names": names, "each": each}
        with self._database.connection() as connection:
            rows = fetch_all(connection, TickRow, "automation_insights/ticks", parameters)
        return [row.record() for row in rows]

    def recent_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        parameters = {"assets": list(assets), "each": each}
        with self._database.connection() as connection:
            return fetch_all(connection, CheckRecord, "automation_insights/recent_checks", parameters)

    def failing_checks(self, assets: Sequence[str], *, each: int) -> list[CheckRecord]:
        parameters = {"assets": list(assets), "each": each}
        with self._database.connection() as connection:
            return fetch_all(connection, CheckRecord, "automation_insights/failing_checks", parameters)

    def decided(self, *, before: int | None = None, limit: int) -> list[Approval]:
        parameters = {"before": before, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, Approval, "automation_insights/decided", parameters)

    def pending(self, *, limit: int) -> int:
        with self._database.connection() as connection:
            return fetch_value(connection, int, "automation_insights/pending", {"limit": limit}) or 0


class PostgresInsights:
    """Implements `flowstone.protocols.Insights` on PostgreSQL: one object for each subject."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fleet = PostgresFleetInsights(database)
        self.assets = PostgresAssetInsights(database)
        self.runs = PostgresRunInsights(database)
        self.overview = PostgresOverviewInsights(database)
        self.automation = PostgresAutomationInsights(database)

    def tables(self) -> list[TableSize]:
        """Return the tables of the store, with about how many rows they have."""
        with self._database.connection() as connection:
            return fetch_all(connection, TableSize, "pulse/tables")

    def connections(self) -> list[PoolUse]:
        """Return how the connections of this process are used."""
        return [self._database.pool_use()]

    def pulse(self) -> Pulse:
        """Return a text for each topic that is another one as soon as something about it is."""
        with self._database.connection() as connection:
            found = fetch_one(connection, Pulse, "pulse/pulse")
        assert found is not None
        return found
