"""What all partitions by time share: windows that tile time, and a lookup that costs the same at any date."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice

from flowstone.core.definition import PartitionsDefinition, reversed_range
from flowstone.core.partition import Partition
from flowstone.core.zones import fixed, load_zone
from flowstone.errors import DefinitionError, UnknownPartitionError


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The time that a partition covers: `start` belongs to it, `end` does not.

    Both carry the fixed offset that the zone has at that moment, so `end - start` is the time that really
    passes (23 or 25 hours on the days when the clock is changed).

    Example:
        >>> from datetime import UTC
        >>> window = TimeWindow(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
        >>> str(window.duration), datetime(2024, 1, 2, tzinfo=UTC) in window
        ('1 day, 0:00:00', False)
    """

    start: datetime
    end: datetime

    @property
    def duration(self) -> timedelta:
        """The time that passes within the window."""
        return self.end - self.start

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= fixed(instant) < self.end


class TimePartitions[Key: date](PartitionsDefinition):
    """Partitions that follow one another in time. The key of each is the start of its window.

    Windows tile time: each ends where the next begins, however the clock is changed. The last window before
    the year 10000 ends with the last microsecond of the calendar.

    Args:
        start: the first partition, as a key or its text.
        end: the last partition, included; None for no end.
        timezone: IANA name of the zone whose clock decides.

    Raises:
        DefinitionError: the zone is unknown, `start` or `end` is no start of a window, or `end` comes first.
    """

    kind: str
    """Name of the cadence, such as "daily"."""

    def __init__(self, start: Key | str, end: Key | str | None = None, timezone: str = "UTC") -> None:
        self.timezone = timezone
        self.zone = load_zone(timezone)
        self.start: Key = self._boundary("start", start)
        self.end: Key | None = None if end is None else self._boundary("end", end)
        if self.end is not None and self.end < self.start:
            raise DefinitionError(
                f"{type(self).__name__}: end {self._text(self.end)} comes before start "
                f"{self._text(self.start)}. Both are included; swap them, or leave end out."
            )

    def keys(self, now: datetime) -> Iterator[Key]:
        """Yield, in order and lazily, every partition whose window is over at `now`."""
        last = self.last(now)
        return iter(()) if last is None else self.span(self.start, last)

    def validate(self, value: object) -> Key:
        """Return the value as a key; the text of a key is understood as well."""
        key = self._read(value) if isinstance(value, str) else self._coerce(value)
        if key < self.start or (self.end is not None and key > self.end):
            until = "on" if self.end is None else f"to {self._text(self.end)}"
            hint = f"The partitions run from {self._text(self.start)} {until}."
            raise UnknownPartitionError(self._text(key), hint=hint)
        return key

    def parse(self, text: str) -> Key:
        """Return the key that a person wrote."""
        return self.validate(text)

    def label(self, value: Partition) -> str:
        """Return the key as people write it."""
        return self._text(self.validate(value))

    def between(self, start: Partition, end: Partition, now: datetime) -> Iterator[Key]:
        """Yield the partitions from `start` to `end`, both included, that are complete at `now`."""
        first = self.start if start is None else self.validate(start)
        last = self.last(now)
        if end is not None:
            final = self.validate(end)
            if final < first:
                raise reversed_range(self._text(first), self._text(final))
            last = None if last is None else min(last, final)
        return iter(()) if last is None else self.span(first, last)

    def last(self, now: datetime) -> Key | None:
        """Return the last partition whose window is over at `now`, or None."""
        now = fixed(now)
        key = self.containing(now)
        if key is not None and self.window(key).end > now:
            key = self.shift(key, -1)
        if key is None or key < self.start:
            return None
        return key if self.end is None else min(key, self.end)

    def is_complete(self, key: Partition, now: datetime) -> bool:
        """Whether the window of this key is over at `now`."""
        return self.window(self.validate(key)).end <= fixed(now)

    def complete_at(self, key: Partition) -> datetime:
        """Return the end of the window."""
        return self.window(self.validate(key)).end

    def earlier(self, key: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys of the definition right before this one."""
        following = self.validate(key)
        found: list[Partition] = []
        while len(found) < number and (before := self.shift(following, -1)) is not None and before >= self.start:
            found.append(before)
            following = before
        return found[::-1]

    def later(self, key: Partition, number: int) -> list[Partition]:
        """Return up to `number` keys of the definition right after this one."""
        return list(islice(self.span(self.validate(key), None), 1, number + 1))

    def span(self, first: Key | None, last: Key | None) -> Iterator[Key]:
        """Yield the keys from `first` to `last`, both included, that the definition has, complete or not.

        Args:
            first: where to begin; None for the first key of the definition.
            last: where to stop; None for the last key of the definition, if it has one.
        """
        key: Key | None = self.start if first is None else max(first, self.start)
        stop = self.end if last is None else last if self.end is None else min(last, self.end)
        while key is not None and (stop is None or key <= stop):
            yield key
            key = self.shift(key, 1)

    def shift(self, key: Key, by: int) -> Key | None:
        """Return the key that comes `by` windows later (earlier if negative), past `start` and `end` too.

        Returns:
            None if the calendar (years 1 to 9999) has no such key.
        """
        moved: Key | None = key
        for _ in range(abs(by)):
            moved = None if moved is None else self._adjacent(moved, 1 if by > 0 else -1)
        return moved

    def cadence(self) -> dict[str, object]:
        """Describe what a key means, without start and end: equal cadences give equal keys equal windows."""
        return {"type": self.kind, "timezone": self.timezone}

    def to_json(self) -> dict[str, object]:
        """Describe the definition with JSON types."""
        end = None if self.end is None else self._text(self.end)
        return {**self.cadence(), "start": self._text(self.start), "end": end}

    @abstractmethod
    def window(self, key: Partition) -> TimeWindow:
        """Return the time that this partition covers."""

    @abstractmethod
    def containing(self, instant: datetime) -> Key | None:
        """Return the key of the window around an instant, even before `start` or after `end`.

        Returns:
            None if that window begins before the year 1.
        """

    @abstractmethod
    def _coerce(self, value: object) -> Key:
        """Return the value as a key on a boundary, or raise UnknownPartitionError naming the nearest ones."""

    @abstractmethod
    def _read(self, text: str) -> Key:
        """Read a key that a person wrote, or raise UnknownPartitionError."""

    @abstractmethod
    def _text(self, key: Key) -> str:
        """Write a key for a person."""

    @abstractmethod
    def _adjacent(self, key: Key, step: int) -> Key | None:
        """Return the next key (step 1) or the one before (step -1); None beyond the calendar."""

    def _boundary(self, name: str, value: Key | str) -> Key:
        try:
            return self._read(value) if isinstance(value, str) else self._coerce(value)
        except UnknownPartitionError as error:
            raise DefinitionError(f"{type(self).__name__}: {name} cannot be used. {error}") from error
