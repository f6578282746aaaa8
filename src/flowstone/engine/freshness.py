"""How old the data of assets are, and who is notified when they are too old.

`FreshnessReader` answers that for pages and commands; `TimeWatch` notes what only time decides, on workers and
wherever an app sends notifications.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.declaring import spelled
from flowstone.core.graph import AssetGraph
from flowstone.core.notification import Freshness
from flowstone.core.partitions import Partition, encode_partition
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.core.zones import utc_text
from flowstone.protocols import Catalog, NotificationStore

log = logging.getLogger("flowstone.notifications")

_BATCHES = (50, 500, 5000, 0)
"""So many partitions before the newest one are examined for one that is committed, a batch after the other."""
_NEAR = 50
_MAX_TARGETS = 10_000
"""So many partitions are examined at once."""
_WATCH_SECONDS = 15.0


class FreshnessReader:
    """Reads how old the data of assets are that declare how old they may be.

    The data of an asset with partitions in time are from the end of the newest partition that is committed, and
    never late once its last partition is; those of others are from their newest commit.

    Args:
        graph: the assets.
        catalog: knows what is committed.
        store: knows when.
        note: whether assets without data are known from now on; without, nothing is written.
    """

    def __init__(
        self, graph: AssetGraph, catalog: Catalog, store: NotificationStore, *, note: bool = False
    ) -> None:
        self._note = note
        self._catalog = catalog
        self._store = store
        self._assets: Mapping[str, Asset] = {
            one.name: one for one in graph if one.fresh_within_seconds is not None
        }

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the assets that declare how old their data may be."""
        return tuple(self._assets)

    def read(self, names: Iterable[str], now: datetime) -> dict[str, Freshness]:
        """Return how old the data of some assets are; those that declare nothing are left out.

        Args:
            names: the assets.
            now: the time that decides.
        """
        chosen = [self._assets[name] for name in dict.fromkeys(names) if name in self._assets]
        if not chosen:
            return {}
        data_at = self._newest_partitions([one for one in chosen if _in_time(one)], now)
        plain = [one.name for one in chosen if not _in_time(one)]
        if plain:
            data_at |= self._store.newest_commits(plain)
        without = [one.name for one in chosen if data_at.get(one.name) is None]
        since = self._store.seen_since(without, note=self._note) if without else {}
        return {one.name: _freshness(one, data_at.get(one.name), since.get(one.name), now) for one in chosen}

    def _newest_partitions(self, assets: Sequence[Asset], now: datetime) -> dict[str, datetime | None]:
        """Return the end of the newest partition of each asset that is over and committed; a question for all."""
        found: dict[str, datetime | None] = dict.fromkeys(one.name for one in assets)
        partitions = {one.name: _partitions(one) for one in assets}
        candidates: dict[str, list[Any]] = {}
        for name, definition in partitions.items():
            last = definition.last(now)
            if last is None:
                found[name] = now  # none is over yet: nothing can be late
            else:
                candidates[name] = [last]
        for following in _BATCHES:
            for target, key in self._committed(candidates):
                at = partitions[target].complete_at(key)
                found[target] = max(found[target] or at, at)
            open_names = [name for name in candidates if found[name] is None]
            if following > _NEAR and open_names:  # searched far back only where there is something
                open_names = list(self._store.newest_commits(open_names))
            earlier = {name: partitions[name].earlier(min(candidates[name]), following) for name in open_names}
            candidates = {name: keys for name, keys in earlier.items() if keys}
            if not candidates:
                break
        return found

    def _committed(self, candidates: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Partition]]:
        """Yield those of some partitions of assets that are committed."""
        targets = {(name, encode_partition(key)): key for name, keys in candidates.items() for key in keys}
        for some in batched(targets, _MAX_TARGETS):
            for target in self._catalog.current(some):
                yield target[0], targets[target]


def _partitions(asset: Asset) -> TimePartitions[Any]:
    assert isinstance(asset.partitions, TimePartitions)
    return asset.partitions


def _in_time(asset: Asset) -> bool:
    return isinstance(asset.partitions, TimePartitions)


def _freshness(asset: Asset, data_at: datetime | None, since: datetime | None, now: datetime) -> Freshness:
    within = asset.fresh_within_seconds or 0.0
    base = data_at or since or now
    late_since = base + timedelta(seconds=within)
    is_late = now > late_since and not _is_final(asset, data_at)
    return Freshness(
        asset=asset.name,
        within_seconds=within,
        data_at=data_at,
        since=since,
        late_since=late_since if is_late else None,
    )


def _is_final(asset: Asset, data_at: datetime | None) -> bool:
    """Whether nothing newer can come: the last of all partitions is committed."""
    partitions = asset.partitions
    if not isinstance(partitions, TimePartitions) or partitions.end is None:
        return False
    return data_at == partitions.complete_at(partitions.end)


def explained(one: Freshness) -> str:
    """Return how old the data of an asset are, for people.

    Example:
        >>> at = datetime(2024, 1, 5, tzinfo=UTC)
        >>> explained(Freshness(asset="orders", within_seconds=7200, data_at=at, late_since=at))
        'its data are from 2024-01-05 00:00:00 UTC, and may be 2.0 hours old'
    """
    may = f"and may be {spelled(one.within_seconds)} old"
    if one.data_at is None:
        since = f" since {utc_text(one.since)}" if one.since is not None else ""
        return f"it has no data{since}, {may}"
    return f"its data are from {utc_text(one.data_at)}, {may}"


class TimeWatch:
    """Notes what only time decides: data that become too old, and runs that take too long.

    Args:
        reader: knows how old data are.
        store: decides on notifications.
        pause_seconds: how often it reads.
        now: the clock; for tests.
    """

    def __init__(
        self,
        reader: FreshnessReader,
        store: NotificationStore,
        *,
        pause_seconds: float = _WATCH_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._reader = reader
        self._store = store
        self._pause = pause_seconds
        self._now = now
        self._due = 0.0

    def poll(self) -> None:
        """Note what there is to note, if the pause is over."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._pause
            self.check()

    def check(self) -> list[str]:
        """Note what there is to note now; return the assets that became late."""
        found = self._reader.read(self._reader.assets, self._now())
        late = {name: explained(one) for name, one in found.items() if one.is_late}
        fresh = {name: explained(one) for name, one in found.items() if not one.is_late}
        became = self._store.set_late(late, fresh) if found else []
        for name in became:
            log.warning("%s is late: %s.", name, late[name])
        self._store.overdue()
        return became
