"""Mappings along time: every upstream window that overlaps, and the last n."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import cast

from flowstone.core.definition import ListedPartitions, PartitionsDefinition
from flowstone.core.mapping import PartitionMapping, check_key, contains
from flowstone.core.partitions import Partition, encode_partition
from flowstone.core.partitions_by_key import MultiPartitions
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.errors import DefinitionError

_TICK = timedelta(microseconds=1)


class TimeWindowOverlap(PartitionMapping):
    """Every upstream partition whose window overlaps the downstream window.

    What lies outside the upstream definition is left out: the first partitions read less.

    Args:
        start_offset: moves the first one by this many upstream windows; -1 reads one more before.
        end_offset: moves the last one by this many upstream windows; 1 reads one more after.

    Raises:
        DefinitionError: an offset is not a whole number.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.partitions_by_time import DailyPartitions, WeeklyPartitions
        >>> days, weeks = DailyPartitions("2024-01-01"), WeeklyPartitions("2024-01-01")
        >>> now = datetime(2024, 2, 1, tzinfo=UTC)
        >>> week = TimeWindowOverlap().upstream(date(2024, 1, 8), downstream=weeks, upstream=days, now=now)
        >>> week[0].isoformat(), week[-1].isoformat(), len(week)
        ('2024-01-08', '2024-01-14', 7)
    """

    many = True

    def __init__(self, start_offset: int = 0, end_offset: int = 0) -> None:
        for name, offset in (("start_offset", start_offset), ("end_offset", end_offset)):
            if type(offset) is not int:
                raise DefinitionError(f"TimeWindowOverlap: {name}={offset!r} must be a whole number.")
        self.start_offset = start_offset
        self.end_offset = end_offset
        self.earlier = end_offset < 0

    def __repr__(self) -> str:
        return f"TimeWindowOverlap(start_offset={self.start_offset}, end_offset={self.end_offset})"

    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check that both sides are partitioned by time."""
        _by_time(self, downstream)
        _by_time(self, upstream)

    def upstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the upstream partitions that overlap the window of `key`, moved by the offsets."""
        window = _by_time(self, downstream).window(check_key(key, downstream))
        read = _by_time(self, upstream)
        first = _moved(read, read.containing(window.start), self.start_offset)
        last = _moved(read, read.containing(window.end - _TICK), self.end_offset)
        return [] if last is None else list(read.span(first, last))

    def downstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the downstream partitions that read this one, among those around its moved window."""
        read, readers = _by_time(self, upstream), _by_time(self, downstream)
        key = read.validate(key)
        offsets = (self.start_offset, self.end_offset)
        earliest = _moved(read, key, -max(offsets))
        latest = _moved(read, key, -min(offsets))
        first = readers.containing(read.window(earliest).start)
        last = readers.containing(read.window(latest).end - _TICK)
        requested = encode_partition(key)
        return [
            reader
            for reader in (() if last is None else readers.span(first, last))
            if contains(self.upstream(reader, downstream=readers, upstream=read, now=now), requested)
        ]


class LastN(PartitionMapping):
    """The last n upstream partitions that end at or before the end of the downstream window.

    For an asset without partitions these are the last n complete ones. For listed keys they are the n keys up to
    and including the same key, in their order. At the start of the definition there are fewer.

    Args:
        n: how many partitions, at least 1.

    Raises:
        DefinitionError: `n` is not a whole number of at least 1.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.partitions_by_time import DailyPartitions
        >>> days = DailyPartitions("2024-01-01")
        >>> now = datetime(2024, 2, 1, tzinfo=UTC)
        >>> read = LastN(3).upstream(date(2024, 1, 2), downstream=days, upstream=days, now=now)
        >>> [str(day) for day in read]
        ['2024-01-01', '2024-01-02']
    """

    many = True

    def __init__(self, n: int) -> None:
        if type(n) is not int or n < 1:
            raise DefinitionError(f"LastN({n!r}): n must be a whole number of at least 1.")
        self.n = n

    def __repr__(self) -> str:
        return f"LastN({self.n})"

    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check that the upstream partitions have an order in which downstream has a place."""
        if not isinstance(upstream, ListedPartitions):
            _by_time(self, upstream)
            if downstream is not None:
                _by_time(self, downstream)
        elif downstream is not None and not (
            isinstance(downstream, ListedPartitions) and downstream.within(upstream)
        ):
            raise DefinitionError(
                f"{self} of {upstream!r} needs the same keys downstream, not {downstream!r}. "
                "Use AllPartitions() or FunctionMapping(...)."
            )

    def upstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the last n partitions up to the end of `key`."""
        key = check_key(key, downstream)
        if isinstance(upstream, ListedPartitions):
            return upstream.until(key, self.n)
        read = _by_time(self, upstream)
        last: date | None
        if downstream is read:
            last = cast("date", key)  # the same windows: the one that ends then is its own
        else:
            last = read.last(now if downstream is None else _by_time(self, downstream).window(key).end)
        found: list[Partition] = [] if last is None else [last]
        while last is not None and len(found) < self.n:
            last = read.shift(last, -1)
            if last is None or last < read.start:
                break
            found.append(last)
        return found[::-1]

    def downstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the downstream partitions, complete at `now`, that read this one."""
        if not isinstance(upstream, TimePartitions) or not isinstance(downstream, TimePartitions):
            return super().downstream(key, downstream=downstream, upstream=upstream, now=now)
        window = upstream.window(upstream.validate(key))
        requested = encode_partition(upstream.validate(key))
        found: list[Partition] = []
        last = downstream.last(now)
        readers = iter(()) if last is None else downstream.span(downstream.containing(window.start), last)
        for reader in readers:
            read = self.upstream(reader, downstream=downstream, upstream=upstream, now=now)
            if contains(read, requested):
                found.append(reader)
            elif downstream.window(reader).end >= window.end:
                break  # n newer ones exist by now, and later readers see newer ones still
        return found


class Previous(PartitionMapping):
    """The partitions right before this one, in the order of the definition; an asset may read itself by it.

    With `n` of 1 the parameter receives the value, and None for the first partition, which has no previous one.
    With more it receives a dict of up to `n` partitions, the oldest first. Of several dimensions one goes back,
    the others stay.

    Args:
        n: how many partitions, at least 1.
        dimension: which dimension goes back; needed only where several are by time, or none is.

    Raises:
        DefinitionError: `n` is not a whole number of at least 1.

    Example:
        >>> from flowstone import DailyPartitions, FlowStone, asset, dep
        >>> @asset(partitions=DailyPartitions("2024-01-01"), deps=[dep("balance", mapping=Previous())])
        ... def balance(balance):
        ...     return 100 if balance is None else balance + 1
        >>> FlowStone([balance]).materialize_all("balance", partition=date(2024, 1, 3)).value
        {datetime.date(2024, 1, 3): 102}
    """

    earlier = True

    def __init__(self, n: int = 1, *, dimension: str | None = None) -> None:
        if type(n) is not int or n < 1:
            raise DefinitionError(f"Previous({n!r}): n must be a whole number of at least 1.")
        self.n = n
        self.dimension = dimension
        self.many = n > 1

    def __repr__(self) -> str:
        dimension = "" if self.dimension is None else f", dimension={self.dimension!r}"
        return f"Previous({self.n}{dimension})"

    def validate(self, downstream: PartitionsDefinition | None, upstream: PartitionsDefinition | None) -> None:
        """Check that both sides have the same partitions, in an order."""
        if upstream is None or downstream is None or not _fits(downstream, upstream):
            raise DefinitionError(
                f"{self!r} needs the same partitions on both sides, not {downstream!r} and {upstream!r}. Use "
                "TimeWindowOverlap(start_offset=-1, end_offset=-1), LastN(...) or FunctionMapping(...)."
            )
        _, ordered = self._going_back(upstream)
        if type(ordered).earlier is PartitionsDefinition.earlier:
            raise DefinitionError(f"{self!r}: {ordered!r} has no order, so nothing comes before a partition.")

    def upstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return up to n partitions before this one, the oldest first."""
        return self._moved(check_key(key, downstream), upstream, -1)

    def downstream(
        self,
        key: Partition,
        *,
        downstream: PartitionsDefinition | None,
        upstream: PartitionsDefinition | None,
        now: datetime,
    ) -> list[Partition]:
        """Return the up to n partitions that read this one."""
        return self._moved(check_key(key, upstream), downstream, 1)

    def _moved(self, key: Partition, definition: PartitionsDefinition | None, step: int) -> list[Partition]:
        assert definition is not None  # see `validate`
        position, ordered = self._going_back(definition)
        part = key[position] if position is not None and isinstance(key, tuple) else key
        if isinstance(ordered, TimePartitions):
            found = _neighbours(ordered, part, self.n * step)
        else:
            found = ordered.earlier(part, self.n) if step < 0 else ordered.later(part, self.n)
        if position is None or not isinstance(key, tuple):
            return found
        return [(*key[:position], one, *key[position + 1 :]) for one in found]

    def _going_back(self, definition: PartitionsDefinition) -> tuple[int | None, PartitionsDefinition]:
        """Return the dimension that goes back, with its position in a key of several."""
        if not isinstance(definition, MultiPartitions):
            return None, definition
        names = list(definition.dimensions)
        timed = [name for name in names if isinstance(definition.dimensions[name], TimePartitions)]
        chosen = self.dimension if self.dimension is not None else timed[0] if len(timed) == 1 else None
        if chosen not in names:
            raise DefinitionError(
                f"{self!r} does not know which dimension of {definition!r} goes back. Name one: "
                f"Previous({self.n}, dimension={names[0]!r})."
            )
        return names.index(chosen), definition.dimensions[chosen]


def _neighbours(definition: TimePartitions[date], key: Partition, steps: int) -> list[Partition]:
    """Return the keys of a definition up to so many steps away, in order; the key itself may lie outside of it."""
    found: list[Partition] = []
    moved: date | None = definition.containing(definition.window(key).start)
    for _ in range(abs(steps)):
        moved = None if moved is None else definition.shift(moved, 1 if steps > 0 else -1)
        if moved is not None and moved in definition:
            found.append(moved)
    return found if steps > 0 else found[::-1]


def _fits(downstream: PartitionsDefinition, upstream: PartitionsDefinition) -> bool:
    if isinstance(downstream, TimePartitions) and isinstance(upstream, TimePartitions):
        return downstream.cadence() == upstream.cadence()
    return downstream == upstream


def _by_time(mapping: PartitionMapping, definition: PartitionsDefinition | None) -> TimePartitions[date]:
    if isinstance(definition, TimePartitions):
        return definition
    found = "an asset without partitions" if definition is None else repr(definition)
    raise DefinitionError(
        f"{mapping!r} needs partitions by time on both sides, not {found}. Use AllPartitions(), "
        "SameDimension() or FunctionMapping(...)."
    )


def _moved(definition: TimePartitions[date], key: date | None, by: int) -> date | None:
    """Move a key, but not beyond the calendar (then the result is None only before its first window)."""
    step = 1 if by > 0 else -1
    for _ in range(abs(by)):
        following = None if key is None else definition.shift(key, step)
        if following is None:
            return key
        key = following
    return key
