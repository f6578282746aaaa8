"""One asset as its page shows it: declaration, state, history, recorded numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from flowstone.core.asset import Asset
from flowstone.core.check import CheckSet
from flowstone.core.declaring import spelled
from flowstone.core.dependency import Dependency
from flowstone.core.graph import AssetGraph
from flowstone.core.insights.details import (
    AssetDetail,
    AssetHistory,
    NeighbourAsset,
    NumberSeries,
    RecordedNumber,
)
from flowstone.core.insights.versions import CheckLine, TargetDetail
from flowstone.core.partitions import NO_PARTITION
from flowstone.core.version import VersionRecord
from flowstone.engine.insights.asset_list import bar_of
from flowstone.engine.insights.assets import AssetSummary
from flowstone.engine.insights.graph import says_of, state_of
from flowstone.engine.insights.versions import VersionPages
from flowstone.protocols import Store

_MAX_SERIES = 12
_MANY_PARTITIONS = 200


class AssetPages:
    """Answers what the page of one asset asks.

    Args:
        graph: the assets.
        store: the store.
        checks: the declared checks.
        versions: answers about versions.
        summary: returns how an asset stands; None when nothing is known of it.
    """

    def __init__(
        self,
        graph: AssetGraph,
        store: Store,
        checks: CheckSet,
        versions: VersionPages,
        summary: Callable[[str], AssetSummary | None],
    ) -> None:
        self._graph = graph
        self._store = store
        self._checks = checks
        self._versions = versions
        self._summary = summary

    def detail(self, asset: Asset) -> AssetDetail:
        """Return what an asset is, and how it stands; also of one that is declared no more."""
        declared = asset.name in self._graph
        summary = self._summary(asset.name)
        target = self._versions.target((asset.name, NO_PARTITION)) if asset.partitions is None else None
        state, says, why = _state_of(summary, target)
        health = {one.asset: one for one in self._store.insights.assets.health([asset.name])}.get(asset.name)
        return AssetDetail(
            name=asset.name,
            declared=declared,
            state=state,
            says=says,
            why=why,
            description=(asset.description or "") if declared else "",
            group=asset.group if declared else None,
            tags=tuple(sorted(asset.tags)) if declared else (),
            where=str(asset.where) if declared else "",
            partitioned=asset.partitions is not None,
            partitions=repr(asset.partitions) if asset.partitions is not None else "",
            options=_options(asset) if declared else (),
            automation=str(asset.automation) if asset.automation is not None else "",
            upstream=tuple(self._upstream(one) for one in _inputs(asset)) if declared else (),
            downstream=self._downstream(asset.name) if declared else (),
            counts=bar_of(summary) if summary is not None and asset.partitions is not None else (),
            total=summary.total if summary is not None else None,
            committed_at=summary.committed_at if summary is not None else None,
            usual_seconds=health.usual_seconds if health is not None else None,
            checks=len(self._checks.of(asset.name)) if declared else 0,
            failed_checks=health.failed_checks if health is not None else 0,
        )

    def history(self, name: str, *, limit: int = 50) -> AssetHistory:
        """Return the newest versions of an asset, over all partitions, and the numbers that they recorded."""
        records = self._store.versions.newest(name, limit=limit)
        many = len(self._store.versions.partitions(name, limit=_MANY_PARTITIONS + 1)) > _MANY_PARTITIONS
        return AssetHistory(
            versions=self._versions.lines(records, find=False),
            numbers=self._numbers(records),
            only_in_use=many and self._store.shared,
            is_all=len(records) < limit,
        )

    def checks(self, name: str, *, limit: int = 100) -> tuple[CheckLine, ...]:
        """Return the newest results of an asset's checks, failures first."""
        found = self._store.checks.latest(name, limit=limit)
        failed = self._store.checks.latest(name, failed=True, limit=limit)
        every = {(one.check, one.partition_key): one for one in (*failed, *found)}
        lines = [self._versions.check(one) for one in every.values()]
        return tuple(sorted(lines, key=lambda one: (one.passed, one.check, one.partition)))[:limit]

    def _upstream(self, one: Dependency) -> NeighbourAsset:
        mapping = repr(one.mapping) if one.mapping is not None else ""
        return NeighbourAsset(
            name=one.asset, mapping=mapping, optional=one.optional, declared=one.asset in self._graph
        )

    def _downstream(self, name: str) -> tuple[NeighbourAsset, ...]:
        found = []
        for other in sorted(self._graph.downstream(name, depth=1)):
            if self._graph[other].hidden:
                continue
            reads = [one for one in _inputs(self._graph[other]) if one.asset == name]
            mapping = ", ".join(repr(one.mapping) for one in reads if one.mapping is not None)
            found.append(NeighbourAsset(name=other, mapping=mapping))
        return tuple(found)

    def _numbers(self, records: Sequence[VersionRecord]) -> tuple[NumberSeries, ...]:
        series: dict[str, list[RecordedNumber]] = {}
        for record in reversed(records):
            if record.stored is None or record.finished_at is None or record.erased_at is not None:
                continue
            label = self._graph.label(record.asset, record.partition_key) if record.partition_key else ""
            for name, value in numbers_of(record.stored.metadata):
                point = RecordedNumber(version=record.step_id, partition=label, at=record.finished_at, value=value)
                series.setdefault(name, []).append(point)
        found = sorted(series.items(), key=lambda item: (-len(item[1]), item[0]))[:_MAX_SERIES]
        return tuple(NumberSeries(name=name, points=tuple(points)) for name, points in found)


def numbers_of(metadata: Mapping[str, object], *, limit: int = 50) -> list[tuple[str, float]]:
    """Return what was recorded as a number, also one level down.

    Example:
        >>> numbers_of({"rows": 3, "ok": True, "by": {"eu": 1.5}, "name": "x"})
        [('rows', 3.0), ('by.eu', 1.5)]
    """
    found: list[tuple[str, float]] = []
    for name, value in metadata.items():
        if name.startswith("flowstone."):
            continue
        inside = value.items() if isinstance(value, Mapping) else ()
        for label, one in [(name, value), *((f"{name}.{key}", item) for key, item in inside)]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                number = _finite(one)
                if number is not None:
                    found.append((label[:100], number))
    return found[:limit]


def _finite(value: float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _inputs(asset: Asset) -> Sequence[Dependency]:
    return asset.dependencies


def _state_of(summary: AssetSummary | None, target: TargetDetail | None) -> tuple[str, str, tuple[str, ...]]:
    """Return the state of an asset, a sentence, and reasons."""
    if target is not None:
        return target.state, target.says, target.why
    if summary is None:
        return "missing", "Nothing is recorded of it.", ()
    return state_of(summary), says_of(summary), ()


def _compute(asset: Asset) -> str | None:
    options = ", ".join(f"{name}={value!r}" for name, value in asset.compute_options.items())
    return f"{asset.compute} ({options})" if options else asset.compute


def _options(asset: Asset) -> tuple[tuple[str, str], ...]:
    """Return what an asset declares besides inputs and partitions; what is at its default is left out."""
    given: list[tuple[str, object]] = [
        ("IO manager", asset.io),
        ("Queue", asset.queue if asset.queue != "assets" else None),
        ("Priority", asset.priority),
        ("Retry", asset.retry),
        ("Timeout", f"{asset.timeout_seconds:g} s" if asset.timeout_seconds is not None else None),
        ("Fresh within", spelled(asset.fresh_within_seconds) if asset.fresh_within_seconds else None),
        ("Isolation", asset.isolation if asset.isolation != "thread" else None),
        ("Compute", _compute(asset)),
        ("Code version", asset.code_version),
        ("Requires", ", ".join(asset.requires) or None),
        ("Limits", ", ".join(f"{name}: {limit}" for name, limit in (asset.concurrency or {}).items()) or None),
        ("Routes", ", ".join(asset.routes) or None),
        ("Config", getattr(asset.config, "__name__", None)),
        ("Renamed from", ", ".join(asset.renamed_from) or None),
        ("Incomplete partitions", "allowed" if asset.allow_incomplete else None),
        ("Runs as", "coroutine" if asset.is_async else None),
    ]
    return tuple((name, str(value)[:500]) for name, value in given if value is not None)
