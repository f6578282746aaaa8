"""What the in-memory store answers about assets and their partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from statistics import median

from flowstone.core.insights.assets import AssetCounts, AssetHealth, AssetTargets, FailedTarget, StaleVersion
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.protocols.insights import AssetInsights
from flowstone.stores.memory.tables import StepRow, Tables

_LAST = 9
_MAX_FAILED_CHECKS = 20
_FAILED = (State.FAILED, State.UPSTREAM_FAILED)


class MemoryAssetInsights(AssetInsights):
    """Implements `flowstone.protocols.AssetInsights` over dictionaries."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def targets(self, asset: str) -> AssetTargets:
        with self._tables.changed:
            return AssetTargets(
                committed=frozenset(key for name, key in self._tables.current if name == asset),
                failed=frozenset(row.partition_key for row in self._failed(asset)),
                active=frozenset(self._active(asset)),
            )

    def counts(self) -> list[AssetCounts]:
        tables = self._tables
        with tables.changed:
            committed = Counter(name for name, _ in tables.current)
            found = []
            for name in sorted({*committed, *tables.by_asset}):
                ours = [step_id for (asset, _), step_id in tables.current.items() if asset == name]
                ends = [tables.steps[one].finished_at for one in ours]
                failed, active = len(list(self._failed(name))), len(list(self._active(name)))
                if committed[name] or failed or active:
                    newest = max((end for end in ends if end is not None), default=None)
                    found.append(AssetCounts(name, committed[name], failed, active, 0, newest))
            return found

    def stale(self, asset: str, code_version: str | None, *, limit: int) -> list[StaleVersion]:
        tables = self._tables
        found = []
        with tables.changed:
            for (name, key), step_id in tables.current.items():
                if name == asset and (one := self._stale(tables.steps[step_id], key, code_version)) is not None:
                    found.append(one)
        return found[:limit]

    def failures(self, assets: Sequence[str], *, limit: int) -> list[FailedTarget]:
        found = []
        with self._tables.changed:
            for name in assets:
                rows = sorted(self._failed(name), key=lambda row: -row.id)[:limit]
                found += [_failure(row) for row in rows]
        return sorted(found, key=lambda one: -one.step_id)

    def health(self, assets: Sequence[str]) -> list[AssetHealth]:
        with self._tables.changed:
            return [AssetHealth(name, self._usual(name), self._failed_checks(name)) for name in assets]

    def _usual(self, asset: str) -> float | None:
        keys = sorted((key for name, key in self._tables.current if name == asset), reverse=True)[:_LAST]
        rows = [self._tables.steps[self._tables.current[asset, key]] for key in keys]
        times = [
            max(0.0, (row.finished_at - row.started_at).total_seconds())
            for row in rows
            if row.finished_at is not None and row.started_at is not None
        ]
        return median(times) if times else None

    def _failed_checks(self, asset: str) -> int:
        newest = {(one.partition_key, one.check): one for one in self._tables.checks.get(asset, ())}
        return min(_MAX_FAILED_CHECKS, sum(not one.passed for one in newest.values()))

    def _stale(self, row: StepRow, key: PartitionKey, code_version: str | None) -> StaleVersion | None:
        tables = self._tables
        # of a version that a person restored only what came after that counts
        restored = tables.restored((row.asset, key))
        for read in row.inputs:
            now = tables.in_use((read.asset, read.partition_key))
            used = tables.steps.get(read.step_id)
            if used is None or self._is_item(used) or (now is not None and now.step_id == read.step_id):
                continue
            if restored is not None and now is not None and now.at <= restored.at:
                continue
            if now is None or not _is_same(used, tables.steps[now.step_id]):
                return StaleVersion(key, read.asset, read.partition_key)
        if code_version is not None and row.new.code_version != code_version:
            before = tables.steps.get(restored.before or 0) if restored is not None else None
            if before is None or before.new.code_version != code_version:
                return StaleVersion(key)
        return None

    def _failed(self, asset: str) -> Iterator[StepRow]:
        """Yield the newest failed step of each partition that no later version or invalidation has replaced."""
        tables = self._tables
        newest: dict[PartitionKey, StepRow] = {}
        invalidated: dict[PartitionKey, int] = {}
        for step_id in tables.by_asset.get(asset, ()):
            row = tables.steps.get(step_id)
            if row is None or self._is_item(row):
                continue
            if row.state in _FAILED:
                newest[row.partition_key] = row
            if row.invalidated_at is not None:
                invalidated[row.partition_key] = row.id
        for key, row in newest.items():
            now = tables.in_use((asset, key))
            replaced = now is not None and (now.step_id > row.id or _is_later(now.at, row.finished_at))
            if invalidated.get(key, 0) < row.id and not replaced:
                yield row

    def _active(self, asset: str) -> Iterator[PartitionKey]:
        for (name, key), step_id in self._tables.active.items():
            if name == asset and not self._is_item(self._tables.steps[step_id]):
                yield key

    def _is_item(self, row: StepRow) -> bool:
        run = self._tables.runs.get(row.run_id)
        return run is not None and run.scatter is not None


def _is_later(at: datetime, than: datetime | None) -> bool:
    return than is not None and at >= than


def _is_same(one: StepRow, other: StepRow) -> bool:
    first = one.stored.content_hash if one.stored is not None else None
    second = other.stored.content_hash if other.stored is not None else None
    return first is not None and first == second


def _failure(row: StepRow) -> FailedTarget:
    return FailedTarget(
        asset=row.asset,
        partition_key=row.partition_key,
        step_id=row.id,
        run_id=row.run_id,
        state=row.state.value,
        error=row.error,
        error_type=row.error_type,
        reason=row.reason,
        finished_at=row.finished_at,
    )
