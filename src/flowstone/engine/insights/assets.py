"""All assets at a glance: how many partitions of each are in which state, what fails and why, what is stale.

`AssetWatch` keeps what is expensive to find out, as long as nothing has changed or for a little while, so that ten
viewers cost what one costs.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from flowstone.core.asset import Asset
from flowstone.core.clean import error_line
from flowstone.core.definition import write_partition
from flowstone.core.graph import AssetGraph
from flowstone.core.insights.assets import AssetCounts, FailedTarget, StaleVersion
from flowstone.core.insights.overview import StaleAsset
from flowstone.core.partitions import PartitionKey
from flowstone.engine.insights.partitions import (
    OrderedPartitions,
    PartitionMap,
    PartitionOrders,
    PartitionStates,
    partition_map,
    partition_states,
    read_run_lengths,
)
from flowstone.errors import FlowStoneError
from flowstone.protocols import Store

log = logging.getLogger("flowstone")

_COST_SHARE = 20
"""What took a second is not asked again for 20, as long as something changes all the time."""
_MAX_KEPT_SECONDS = 60.0
_INLINE_TARGETS = 5_000
"""So many versions are compared with their inputs at once; more are compared in the background."""
_MAX_STALE = 200_000
_INLINE_ASSETS = 20
_MAX_KEPT = 16
_LAST_PARTITIONS = 50
"""So many of the last partitions of each asset are compared for the first page."""
_LAST_FAILURES = 10
_MAX_FAILING = 200
_SHOWN_LINE = 300


@dataclass(frozen=True, slots=True)
class AssetPartitions:
    """The partitions of one asset.

    Args:
        states: the state of each.
        map: the same as cells of a page.
    """

    states: PartitionStates
    map: PartitionMap


@dataclass(frozen=True, slots=True)
class AssetSummary:
    """How one asset stands. A partition with a version in use may have failed since, so that numbers overlap.

    Args:
        name: the asset.
        group: its group, if it has one.
        total: how many partitions it has; 1 for an asset without; None when they cannot be listed.
        committed: with a version in use.
        missing: without one; None when `total` is.
        failed: whose last attempt failed.
        active: with a step that is not over.
        unstarted: that wait in a large backfill.
        committed_at: when the newest version was committed.
    """

    name: str
    group: str | None
    total: int | None
    committed: int
    missing: int | None
    failed: int
    active: int
    unstarted: int
    committed_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailingPartition:
    """A partition whose last attempt failed.

    Args:
        asset: the asset.
        partition: as people write it; empty for an asset without partitions.
        partition_key: the same, encoded.
        step_id: the step that failed.
        run_id: its run.
        state: `failed`, or `upstream_failed` when an input failed.
        error: the line that says what went wrong.
        error_type: name of the class that was raised.
        failed_at: when.
        number: how many partitions of the asset fail.
        since: since when the asset fails, as far as that is known from its last failures.
        holds: how many assets downstream could not run because of it, where that was counted.
    """

    asset: str
    partition: str
    partition_key: PartitionKey
    step_id: int
    run_id: str
    state: str
    error: str
    error_type: str | None
    failed_at: datetime | None
    number: int = 1
    since: datetime | None = None
    holds: int = 0


class AssetWatch:
    """Answers what pages ask about assets, and keeps what is expensive.

    Args:
        graph: the assets.
        store: the store.
        marker: returns a value that changes when anything about assets may have changed.
        in_background: whether what takes long may be found out in a thread, and be missing until then.
    """

    def __init__(
        self, graph: AssetGraph, store: Store, *, marker: Callable[[], object], in_background: bool = False
    ) -> None:
        self._graph = graph
        self._store = store
        self._marker = marker
        self._in_background = in_background
        self._orders = PartitionOrders()
        self._guard = threading.Lock()
        self._counts: _Kept[dict[str, AssetCounts]] | None = None
        self._stale: dict[str, _Kept[list[StaleVersion]]] = {}
        self._stale_assets: _Kept[list[StaleAsset]] | None = None
        self._partitions: dict[str, _Kept[tuple[datetime, AssetPartitions]]] = {}
        self._comparing: set[str] = set()

    def order(self, asset: Asset) -> OrderedPartitions:
        """Return the complete partitions of an asset in order; of one that cannot list them, the recorded ones."""
        recorded: frozenset[PartitionKey] = frozenset()
        if asset.partitions is not None and not asset.partitions.listable:
            found = self._store.insights.assets.targets(asset.name)
            recorded = found.committed | found.failed | found.active | found.unstarted
        return self._orders.of(asset, datetime.now(UTC), recorded)

    def partitions(self, asset: Asset) -> AssetPartitions:
        """Return the state of each partition of an asset, and the cells of a page for them."""
        marker, started = self._marker(), time.monotonic()
        kept = self._partitions.get(asset.name)
        now = datetime.now(UTC)
        if kept is not None and kept.serves(marker, patient=self._in_background) and kept.value[0] == _minute(now):
            return kept.value[1]
        targets = self._store.insights.assets.targets(asset.name)
        recorded = targets.committed | targets.failed | targets.active if _is_open(asset) else ()
        order = self._orders.of(asset, now, recorded)
        stale = self.stale(asset, len(targets.committed))
        keys = None if stale is None else frozenset(one.partition_key for one in stale)
        states = partition_states(asset.name, order, targets, keys)
        found = AssetPartitions(states, partition_map(order, read_run_lengths(states.codes)))
        if stale is not None:
            self._partitions[asset.name] = _Kept(
                (_minute(now), found), marker, started, time.monotonic() - started
            )
            while len(self._partitions) > _MAX_KEPT:
                del self._partitions[next(iter(self._partitions))]
        return found

    def counts(self) -> Mapping[str, AssetCounts]:
        """Return how many partitions of each recorded asset are in which state."""
        kept = self._counts
        marker = self._marker()
        if kept is None or not kept.serves(marker, patient=self._in_background):
            started = time.monotonic()
            found = {one.asset: one for one in self._store.insights.assets.counts()}
            self._counts = kept = _Kept(found, marker, started, time.monotonic() - started)
        return kept.value

    def summaries(self) -> tuple[AssetSummary, ...]:
        """Return how each declared asset stands, in the order of the graph."""
        counts = self.counts()
        return tuple(self._summary(one, counts.get(one.name) or AssetCounts(one.name)) for one in self._graph)

    def summary(self, name: str) -> AssetSummary | None:
        """Return how one asset stands; None when the app does not declare it and nothing is recorded of it."""
        counts = self.counts().get(name)
        if name in self._graph:
            return self._summary(self._graph[name], counts or AssetCounts(name))
        if counts is None:
            return None
        return AssetSummary(
            name=name,
            group=None,
            total=None,
            committed=counts.committed,
            missing=None,
            failed=counts.failed,
            active=counts.active,
            unstarted=counts.unstarted,
            committed_at=counts.committed_at,
        )

    def failing(self, *, assets: int = 20, of_each: int = 1) -> tuple[FailingPartition, ...]:
        """Return what failed last of those declared assets that fail.

        Args:
            assets: how many assets at most.
            of_each: how many partitions of each.
        """
        counts = self.counts()
        names = [one.name for one in self._graph if (known := counts.get(one.name)) and known.failed]
        if not names:
            return ()
        rows = self._store.insights.assets.failures(names[:_MAX_FAILING], limit=max(of_each, _LAST_FAILURES))
        of_asset: dict[str, list[FailedTarget]] = {}
        for row in rows:
            of_asset.setdefault(row.asset, []).append(row)
        return tuple(
            self._failing(one, counts[name].failed, found[-1].finished_at)
            for name, found in list(of_asset.items())[:assets]
            for one in found[:of_each]
        )

    def failing_of(self, names: Sequence[str], *, limit: int = 3) -> tuple[FailingPartition, ...]:
        """Return what failed last of some assets, the newest first.

        Args:
            names: the assets; of many, the first 20.
            limit: how many partitions of each.
        """
        found = self._store.insights.assets.failures(names[:20], limit=limit)
        known = {name: one.failed for name, one in self.counts().items()}
        return tuple(self._failing(one, known.get(one.asset, 1), one.finished_at) for one in found)

    def _failing(self, one: FailedTarget, number: int, since: datetime | None) -> FailingPartition:
        return FailingPartition(
            asset=one.asset,
            partition=self._label(one.asset, one.partition_key),
            partition_key=one.partition_key,
            step_id=one.step_id,
            run_id=one.run_id,
            state=one.state,
            error=error_line(one.error or one.reason or "")[:_SHOWN_LINE],
            error_type=one.error_type,
            failed_at=one.finished_at,
            number=number,
            since=since,
        )

    def stale_assets(self) -> Sequence[StaleAsset] | None:
        """Return assets with stale versions among their last partitions; None while that is not known."""
        marker = self._marker()
        kept = self._stale_assets
        if kept is not None and kept.serves(marker, patient=self._in_background, slow=True):
            return kept.value
        if self._in_background and len(self._graph.assets) > _INLINE_ASSETS:
            self._later("", self._compare_assets)
            return kept.value if kept is not None else None
        return self._compare_assets()

    def beginning_with(self, asset: Asset, text: str, *, limit: int) -> list[str]:
        """Return partitions of an asset whose text begins like this one, the last ones first."""
        order = self.order(asset)
        found = []
        for position in range(len(order.keys) - 1, -1, -1):
            key = order.keys[position]
            # the text of a key begins as people write it, behind its tag, but for a few characters
            if key[2 : 2 + len(text)] == text or (key[:1] == "(" and text in key):
                found.append(order.label(position))
                if len(found) == limit:
                    break
        return found

    def _compare_assets(self) -> Sequence[StaleAsset]:
        marker, started = self._marker(), time.monotonic()
        versions = {one.name: one.code_version for one in self._graph if one.dependencies or one.code_version}
        found = self._store.insights.overview.stale_assets(versions, limit=_LAST_PARTITIONS) if versions else []
        self._stale_assets = _Kept(found, marker, started, time.monotonic() - started)
        return found

    def stale(self, asset: Asset, committed: int) -> Sequence[StaleVersion] | None:
        """Return the versions in use that would come out differently now; None while that is not known.

        Args:
            asset: the asset.
            committed: how many versions of it are in use.
        """
        if not committed or (not asset.dependencies and asset.code_version is None):
            return ()
        marker = self._marker()
        kept = self._stale.get(asset.name)
        if kept is not None and kept.serves(marker, patient=self._in_background, slow=True):
            return kept.value
        if self._in_background and committed > _INLINE_TARGETS:
            self._later(asset.name, partial(self._compare, asset))
            return kept.value if kept is not None else None
        return self._compare(asset)

    def _compare(self, asset: Asset) -> Sequence[StaleVersion]:
        marker, started = self._marker(), time.monotonic()
        found = self._store.insights.assets.stale(asset.name, asset.code_version, limit=_MAX_STALE)
        self._stale[asset.name] = _Kept(found, marker, started, time.monotonic() - started)
        return found

    def _later(self, what: str, work: Callable[[], object]) -> None:
        """Find something out in a thread of its own, one for each thing at a time."""
        with self._guard:
            if what in self._comparing:
                return
            self._comparing.add(what)
        threading.Thread(target=self._now, args=(what, work), name="flowstone-stale", daemon=True).start()

    def _now(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except FlowStoneError as error:
            log.info("What is stale %s cannot be said for now: %s", f"of {what!r}" if what else "", error)
        finally:
            with self._guard:
                self._comparing.discard(what)

    def _summary(self, asset: Asset, counts: AssetCounts) -> AssetSummary:
        listable = asset.partitions is None or asset.partitions.listable
        total = len(self._orders.of(asset, datetime.now(UTC)).keys) if listable else None
        return AssetSummary(
            name=asset.name,
            group=asset.group,
            total=total,
            # of an older declaration there may be more than there are partitions now
            committed=counts.committed if total is None else min(counts.committed, total),
            missing=None if total is None else max(0, total - counts.committed),
            failed=counts.failed,
            active=counts.active,
            unstarted=counts.unstarted,
            committed_at=counts.committed_at,
        )

    def _label(self, asset: str, key: PartitionKey) -> str:
        return write_partition(self._graph[asset].partitions if asset in self._graph else None, key)


def _minute(now: datetime) -> datetime:
    """Return the minute: partitions by time become complete meanwhile."""
    return now.replace(second=0, microsecond=0)


def _is_open(asset: Asset) -> bool:
    return asset.partitions is not None and not asset.partitions.listable


@dataclass(frozen=True, slots=True)
class _Kept[T]:
    """An answer, the marker before it was found, when that began and how long it took."""

    value: T
    marker: object
    at: float
    took: float

    def serves(self, marker: object, *, patient: bool, slow: bool = False) -> bool:
        """Whether it is new enough: nothing changed since.

        For whoever watches all the time (`patient`) it also is when it was expensive and is only a little older.
        """
        age = time.monotonic() - self.at
        if marker is not None and self.marker == marker:
            return age < _MAX_KEPT_SECONDS
        limit = _MAX_KEPT_SECONDS if slow else _SOON_SECONDS
        return patient and age < min(limit, _COST_SHARE * self.took) and self.took > _CHEAP_SECONDS


_CHEAP_SECONDS = 0.005
_SOON_SECONDS = 1.0
"""What changes all the time is at most so old on a page, but for what is stale."""
