"""What the PostgreSQL store answers for people who watch."""

from __future__ import annotations

from flowstone.core.insights.pulse import Pulse
from flowstone.core.insights.system import PoolUse, TableSize
from flowstone.protocols.insights import (
    AssetInsights,
    AutomationInsights,
    FleetInsights,
    Insights,
    OverviewInsights,
    RunInsights,
)
from flowstone.stores.postgres.asset_insights import PostgresAssetInsights
from flowstone.stores.postgres.automation_insights import PostgresAutomationInsights
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.fleet_insights import PostgresFleetInsights
from flowstone.stores.postgres.overview_insights import PostgresOverviewInsights
from flowstone.stores.postgres.run_insights import PostgresRunInsights
from flowstone.stores.postgres.sql import fetch_all, fetch_one


class PostgresInsights(Insights):
    """Implements `flowstone.protocols.Insights` on PostgreSQL: one object for each subject."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._fleet = PostgresFleetInsights(database)
        self._assets = PostgresAssetInsights(database)
        self._runs = PostgresRunInsights(database)
        self._overview = PostgresOverviewInsights(database)
        self._automation = PostgresAutomationInsights(database)

    @property
    def fleet(self) -> FleetInsights:
        return self._fleet

    @property
    def runs(self) -> RunInsights:
        return self._runs

    @property
    def assets(self) -> AssetInsights:
        return self._assets

    @property
    def overview(self) -> OverviewInsights:
        return self._overview

    @property
    def automation(self) -> AutomationInsights:
        return self._automation

    def tables(self) -> list[TableSize]:
        with self._database.connection() as connection:
            return fetch_all(connection, TableSize, "pulse/tables")

    def connections(self) -> list[PoolUse]:
        return [self._database.pool_use()]

    def pulse(self) -> Pulse:
        with self._database.connection() as connection:
            found = fetch_one(connection, Pulse, "pulse/pulse")
        assert found is not None
        return found
