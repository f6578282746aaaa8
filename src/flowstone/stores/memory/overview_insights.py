"""What the in-memory store answers for the first page and the search."""

from __future__ import annotations

from collections.abc import Mapping

from flowstone.core.insights.overview import FoundRun, StaleAsset
from flowstone.protocols.insights import AssetInsights, OverviewInsights
from flowstone.stores.memory.tables import Tables

_MAX_STALE = 100_000


class MemoryOverviewInsights(OverviewInsights):
    """Implements `flowstone.protocols.OverviewInsights` over dictionaries."""

    def __init__(self, tables: Tables, assets: AssetInsights) -> None:
        self._tables = tables
        self._assets = assets

    def stale_assets(self, code_versions: Mapping[str, str | None], *, limit: int) -> list[StaleAsset]:
        found = []
        for name in sorted(code_versions):
            with self._tables.changed:
                last = sorted((key for asset, key in self._tables.current if asset == name), reverse=True)[:limit]
                stale = self._assets.stale(name, code_versions[name], limit=_MAX_STALE)
            ours = [one for one in stale if one.partition_key in last]
            if ours:
                first = next((one for one in ours if one.upstream is not None), ours[0])
                found.append(StaleAsset(name, len(ours), len(last), first.upstream, first.upstream_key))
        return found

    def find_runs(self, text: str, *, limit: int) -> list[FoundRun]:
        found: list[FoundRun] = []
        with self._tables.changed:
            for run in reversed(self._tables.runs.values()):
                if len(found) == limit:
                    break
                new = run.new
                if new.id.startswith(text) or new.selection.startswith(text) or text in new.details.tags:
                    state = run.record().state.value
                    found.append(FoundRun(new.id, new.kind, new.selection[:200], state, new.created_at))
        return found
