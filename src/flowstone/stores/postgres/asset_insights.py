"""What the PostgreSQL store answers about assets and their partitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from flowstone.core.insights.assets import AssetCounts, AssetHealth, AssetTargets, FailedTarget, StaleVersion
from flowstone.core.partitions import PartitionKey
from flowstone.protocols.insights import AssetInsights
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_all, fetch_value

if TYPE_CHECKING:
    pass


class PostgresAssetInsights(AssetInsights):
    """Implements `flowstone.protocols.AssetInsights` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def targets(self, asset: str) -> AssetTargets:
        named = {"asset": asset}
        with self._database.connection() as connection:
            return AssetTargets(
                committed=_keys(fetch_value(connection, str, "asset_insights/committed", named)),
                failed=_keys(fetch_value(connection, str, "asset_insights/failed", named)),
                active=_keys(fetch_value(connection, str, "asset_insights/active", named)),
                unstarted=_keys(fetch_value(connection, str, "asset_insights/unstarted", named)),
            )

    def counts(self) -> list[AssetCounts]:
        with self._database.connection() as connection:
            return fetch_all(connection, AssetCounts, "asset_insights/counts")

    def stale(self, asset: str, code_version: str | None, *, limit: int) -> list[StaleVersion]:
        parameters = {"asset": asset, "code_version": code_version, "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, StaleVersion, "asset_insights/stale", parameters)

    def failures(self, assets: Sequence[str], *, limit: int) -> list[FailedTarget]:
        parameters = {"assets": list(assets), "limit": limit}
        with self._database.connection() as connection:
            return fetch_all(connection, FailedTarget, "asset_insights/failures", parameters)

    def health(self, assets: Sequence[str]) -> list[AssetHealth]:
        with self._database.connection() as connection:
            return fetch_all(connection, AssetHealth, "asset_insights/health", {"assets": list(assets)})


def _keys(lines: str | None) -> frozenset[PartitionKey]:
    """Return the encoded partitions that come as lines of one text; none of them has a line break."""
    return frozenset() if lines is None else frozenset(cast("list[PartitionKey]", lines.split("\n")))
