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

_LONG = 50_000
_MAX_KEPT = 8


class PostgresAssetInsights(AssetInsights):
    """Implements `flowstone.protocols.AssetInsights` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lines: dict[tuple[str, str], tuple[str, frozenset[PartitionKey]]] = {}

    def targets(self, asset: str) -> AssetTargets:
        named = {"asset": asset}
        with self._database.connection() as connection:
            committed = fetch_value(connection, str, "asset_insights/committed", named)
            failed = fetch_value(connection, str, "asset_insights/failed", named)
            active = fetch_value(connection, str, "asset_insights/active", named)
            unstarted = fetch_value(connection, str, "asset_insights/unstarted", named)
        return AssetTargets(
            committed=self._keys(asset, "committed", committed),
            failed=self._keys(asset, "failed", failed),
            active=self._keys(asset, "active", active),
            unstarted=self._keys(asset, "unstarted", unstarted),
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

    def _keys(self, asset: str, what: str, lines: str | None) -> frozenset[PartitionKey]:
        """Return the encoded partitions that come as lines of one text; none of them has a line break.

        Taking a long text apart takes longer than reading it: the last ones are kept, and compared.
        """
        if lines is None:
            return frozenset()
        kept = self._lines.get((asset, what))
        if kept is not None and kept[0] == lines:
            return kept[1]
        keys = frozenset(cast("list[PartitionKey]", lines.split("\n")))
        if len(lines) > _LONG:
            self._lines[asset, what] = lines, keys
            while len(self._lines) > _MAX_KEPT:
                del self._lines[next(iter(self._lines))]
        return keys
