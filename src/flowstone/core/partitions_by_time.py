"""Partitions by time: hours, days, weeks, months, quarters, years, and the ticks of a cron expression.

`TimePartitions` has what they share: windows that tile time without gaps through every change of the clock, and a
lookup that costs the same at any date. Those of the calendar follow, then those that go by what a clock shows.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import islice
from typing import Literal, get_args

from flowstone.core.cron import Cron
from flowstone.core.definition import PartitionsDefinition, reversed_range
from flowstone.core.partitions import Partition
from flowstone.core.zones import fixed, in_zone, load_zone, next_hour, start_of_day, start_of_hour, wall_offsets
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError, did_you_mean


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


Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_WEEKDAYS: tuple[str, ...] = get_args(Weekday)


class CalendarPartitions(TimePartitions[date]):
    """Partitions of whole local days, with the first day of each as its key (a `date`)."""

    unit: str
    """What a key is the first day of."""

    def window(self, key: Partition) -> TimeWindow:
        """Return the time from the first local midnight to the next one."""
        return self._window(self._coerce(key))

    def containing(self, instant: datetime) -> date | None:
        """Return the key of the window around an instant."""
        instant = fixed(instant)
        key = self._truncate(in_zone(instant, self.zone).date())
        # Where the clock was put back over midnight, an instant belongs to the day that began before it.
        while key is not None and self._window(key).start > instant:
            key = self._add(key, -1)
        while key is not None and self._window(key).end <= instant and (later := self._add(key, 1)):
            key = later
        return key

    @abstractmethod
    def _truncate(self, day: date) -> date | None:
        """Return the first day of the unit around a day; None if that is before the year 1."""

    @abstractmethod
    def _add(self, key: date, steps: int) -> date | None:
        """Move by units of the calendar, whether or not the zone has such a day."""

    def _window(self, key: date) -> TimeWindow:
        start = start_of_day(key, self.zone)
        following = self._add(key, 1)
        end = (
            datetime.max.replace(tzinfo=start.tzinfo) if following is None else start_of_day(following, self.zone)
        )
        return TimeWindow(start, end)

    def _adjacent(self, key: date, step: int) -> date | None:
        moved = self._add(key, step)
        while moved is not None and self._skipped(moved):
            moved = self._add(moved, step)
        return moved

    def _skipped(self, key: date) -> bool:
        """Whether the zone never had this day: then its noon was skipped, and the window is empty."""
        if self.zone.utcoffset(None) is not None:
            return False  # the clock is never changed, as in UTC
        before, after = wall_offsets(datetime(key.year, key.month, key.day, 12), self.zone)
        if before >= after:
            return False
        window = self._window(key)
        return window.start >= window.end

    def _coerce(self, value: object) -> date:
        if isinstance(value, datetime):
            raise UnknownPartitionError(value, hint="Keys are dates: pass value.date() of the local time.")
        if type(value) is not date:
            raise UnknownPartitionError(value, hint=f"Keys are dates, each the first day of a {self.unit}.")
        below = self._truncate(value)
        if below != value:
            above = None if below is None else self._add(below, 1)
            nearest = " or ".join(self._text(key) for key in (below, above) if key is not None)
            hint = f"It is not the first day of a {self.unit}; the nearest is {nearest or 'out of reach'}."
            raise UnknownPartitionError(value.isoformat(), hint=hint)
        if self._skipped(value):
            raise UnknownPartitionError(value.isoformat(), hint=f"{self.timezone} skipped this {self.unit}.")
        return value

    def _read(self, text: str) -> date:
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise UnknownPartitionError(text, hint="Write it as YYYY-MM-DD, such as 2024-01-01.") from error
        return self._coerce(day)

    def _text(self, key: date) -> str:
        return key.isoformat()


class DailyPartitions(CalendarPartitions):
    """One partition per local day; the key is the day, a `date`.

    A day lasts 23 or 25 hours when the clock is changed; a day that the zone skipped is no partition.

    Args:
        start: the first day, as a date or as text.
        end: the last day, included; None for no end.
        timezone: IANA name of the zone whose days these are.

    Raises:
        DefinitionError: the zone or a date cannot be used, or `end` comes before `start`.

    Example:
        >>> days = DailyPartitions(date(2024, 1, 1), timezone="Europe/Berlin")
        >>> days.parse("2024-03-31")
        datetime.date(2024, 3, 31)
        >>> str(days.window(date(2024, 3, 31)).duration)
        '23:00:00'
    """

    kind = "daily"
    unit = "day"

    def _truncate(self, day: date) -> date:
        return day

    def _add(self, key: date, steps: int) -> date | None:
        return _add_days(key, steps)


class WeeklyPartitions(CalendarPartitions):
    """One partition per week; the key is its first day, a `date`.

    Args:
        start: the first day of the first week, as a date or as text.
        end: the first day of the last week, included; None for no end.
        timezone: IANA name of the zone whose weeks these are.
        week_starts: the English name of the first day of the week.

    Raises:
        DefinitionError: the zone, the weekday or a date cannot be used, or `end` comes before `start`.

    Example:
        >>> from datetime import UTC
        >>> weeks = WeeklyPartitions("2024-01-07", week_starts="sunday")
        >>> weeks.last(datetime(2024, 1, 30, tzinfo=UTC))
        datetime.date(2024, 1, 21)
    """

    kind = "weekly"
    unit = "week"

    def __init__(
        self,
        start: date | str,
        end: date | str | None = None,
        timezone: str = "UTC",
        *,
        week_starts: Weekday = "monday",
    ) -> None:
        if week_starts not in _WEEKDAYS:
            hint = did_you_mean(str(week_starts).lower(), _WEEKDAYS)
            raise DefinitionError(f"A week cannot start on {week_starts!r}.{hint} Use {', '.join(_WEEKDAYS)}.")
        self.week_starts = week_starts
        self.unit = f"week (weeks start on {week_starts})"
        super().__init__(start, end, timezone)

    def _truncate(self, day: date) -> date | None:
        return _add_days(day, -((day.weekday() - _WEEKDAYS.index(self.week_starts)) % 7))

    def _add(self, key: date, steps: int) -> date | None:
        return _add_days(key, 7 * steps)

    def cadence(self) -> dict[str, object]:
        """Describe what a key means; the first day of the week belongs to it."""
        return {**super().cadence(), "week_starts": self.week_starts}


class MonthlyPartitions(CalendarPartitions):
    """One partition per month; the key is its first day, a `date`, written as "2024-01".

    Args:
        start: the first day of the first month, as a date or as text.
        end: the first day of the last month, included; None for no end.
        timezone: IANA name of the zone whose months these are.

    Raises:
        DefinitionError: the zone or a date cannot be used, or `end` comes before `start`.

    Example:
        >>> months = MonthlyPartitions("2024-01")
        >>> months.parse("2024-02"), months.label(date(2024, 2, 1))
        (datetime.date(2024, 2, 1), '2024-02')
    """

    kind = "monthly"
    unit = "month"

    def _truncate(self, day: date) -> date:
        return day.replace(day=1)

    def _add(self, key: date, steps: int) -> date | None:
        year, month = divmod(key.year * 12 + key.month - 1 + steps, 12)
        return date(year, month + 1, 1) if 1 <= year <= 9999 else None

    def _read(self, text: str) -> date:
        return super()._read(f"{text}-01" if len(text) == len("2024-01") else text)

    def _text(self, key: date) -> str:
        return key.isoformat()[:7]


class QuarterlyPartitions(MonthlyPartitions):
    """One partition per quarter; the key is its first day, a `date`, written as "2024-04".

    Args:
        start: the first day of the first quarter, as a date or as text.
        end: the first day of the last quarter, included; None for no end.
        timezone: IANA name of the zone whose quarters these are.

    Raises:
        DefinitionError: the zone or a date cannot be used, or `end` comes before `start`.

    Example:
        >>> quarters = QuarterlyPartitions("2024-01")
        >>> quarters.label(date(2024, 4, 1)), quarters.window(date(2024, 4, 1)).duration.days
        ('2024-04', 91)
    """

    kind = "quarterly"
    unit = "quarter"
    months = 3

    def _truncate(self, day: date) -> date:
        return day.replace(month=day.month - (day.month - 1) % self.months, day=1)

    def _add(self, key: date, steps: int) -> date | None:
        return super()._add(key, steps * self.months)


class YearlyPartitions(QuarterlyPartitions):
    """One partition per year; the key is its first day, a `date`, written as "2024".

    Args:
        start: the first day of the first year, as a date or as text.
        end: the first day of the last year, included; None for no end.
        timezone: IANA name of the zone whose years these are.

    Raises:
        DefinitionError: the zone or a date cannot be used, or `end` comes before `start`.

    Example:
        >>> years = YearlyPartitions("2023")
        >>> years.parse("2024"), years.label(date(2024, 1, 1))
        (datetime.date(2024, 1, 1), '2024')
    """

    kind = "yearly"
    unit = "year"
    months = 12

    def _read(self, text: str) -> date:
        return super()._read(f"{text}-01" if len(text) == len("2024") else text)

    def _text(self, key: date) -> str:
        return key.isoformat()[:4]


def _add_days(day: date, days: int) -> date | None:
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return None


_FIRST = datetime(1, 1, 2, tzinfo=UTC)


class HourlyPartitions(TimePartitions[datetime]):
    """One partition per hour on the clock of a zone; the key is its start, an aware `datetime`.

    Keys carry the fixed offset that the zone has at that hour, so the two hours of an overlap
    (`2024-10-27T02:00+02:00` and then `2024-10-27T02:00+01:00`) are different values and different texts.
    Where a clock is changed within an hour (Lord Howe moves by 30 minutes), the hour is cut there.

    Args:
        start: the first hour; text or a datetime without a zone is read on the clock of `timezone`.
        end: the last hour, included; None for no end.
        timezone: IANA name of the zone.

    Raises:
        DefinitionError: the zone or an hour cannot be used, or `end` comes before `start`.

    Example:
        >>> from datetime import UTC
        >>> hours = HourlyPartitions("2024-03-31T01:00", timezone="Europe/Berlin")
        >>> now = datetime(2024, 3, 31, 2, tzinfo=UTC)
        >>> [hours.label(key) for key in hours.keys(now)]
        ['2024-03-31T01:00+01:00', '2024-03-31T03:00+02:00']
    """

    kind = "hourly"
    every = 60
    """Length of a window in minutes of the clock."""

    def window(self, key: Partition) -> TimeWindow:
        """Return the time from this hour to the next."""
        start = self._coerce(key)
        return TimeWindow(
            start, next_hour(start, self.zone, self.every) or datetime.max.replace(tzinfo=start.tzinfo)
        )

    def containing(self, instant: datetime) -> datetime | None:
        """Return the key of the hour around an instant."""
        return start_of_hour(fixed(instant), self.zone, self.every)

    def _adjacent(self, key: datetime, step: int) -> datetime | None:
        if step > 0:
            return next_hour(key, self.zone, self.every)
        try:
            return start_of_hour(key - timedelta(microseconds=1), self.zone, self.every)
        except OverflowError:
            return None

    def _coerce(self, value: object) -> datetime:
        if type(value) is not datetime:
            hint = "Keys are datetimes with a time zone, such as 2024-01-01T05:00+01:00."
            raise UnknownPartitionError(value, hint=hint)
        try:
            instant = fixed(value)
        except PartitionError as error:
            raise UnknownPartitionError(value.isoformat(), hint=str(error)) from error
        local = in_zone(instant, self.zone)
        if _skips(value):
            raise UnknownPartitionError(
                value.isoformat(), hint=f"The clock skipped this time; the hour is {self._text(local)}."
            )
        began = start_of_hour(instant, self.zone, self.every)
        if began != instant:
            later = next_hour(began, self.zone, self.every)
            nearest = self._text(began) + (f" or {self._text(later)}" if later else "")
            raise UnknownPartitionError(
                value.isoformat(), hint=f"No window begins there; the nearest is {nearest}."
            )
        return began

    def _boundary(self, name: str, value: datetime | str) -> datetime:
        if isinstance(value, date) and getattr(value, "tzinfo", None) is None:
            value = value.isoformat()
        return super()._boundary(name, value)

    def _read(self, text: str) -> datetime:
        try:
            wall = datetime.fromisoformat(text)
        except ValueError as error:
            hint = "Write it as 2024-01-01T05:00, with an offset such as +01:00 where it is needed."
            raise UnknownPartitionError(text, hint=hint) from error
        if wall.tzinfo is not None:
            return self._coerce(wall)
        before, after = (timezone(offset) for offset in wall_offsets(wall, self.zone))
        choices = [wall.replace(tzinfo=offset) for offset in (before, after)]
        if before == after:
            return self._coerce(choices[0])
        happens = "twice" if choices[0] < choices[1] else "never"
        chosen = " or ".join(self._text(in_zone(choice, self.zone)) for choice in choices)
        raise UnknownPartitionError(text, hint=f"{self.timezone} has this time {happens}: write {chosen}.")

    def _text(self, key: datetime) -> str:
        return key.isoformat(timespec="auto" if key.second or key.microsecond else "minutes")


class MinutelyPartitions(HourlyPartitions):
    """One partition per so many minutes on the clock of a zone; the key is its start, an aware `datetime`.

    Everything else is as with `HourlyPartitions`: windows begin at full multiples within the hour, and where the
    clock is changed.

    Args:
        start: the first window; text or a datetime without a zone is read on the clock of `timezone`.
        end: the last window, included; None for no end.
        timezone: IANA name of the zone.
        every: length in minutes, a divisor of 60.

    Raises:
        DefinitionError: the length, the zone or a time cannot be used, or `end` comes before `start`.

    Example:
        >>> quarters = MinutelyPartitions("2024-01-01T00:00", every=15)
        >>> quarters.label(quarters.last(datetime.fromisoformat("2024-01-01T05:40+00:00")))
        '2024-01-01T05:15+00:00'
    """

    kind = "minutely"

    def __init__(
        self,
        start: datetime | str,
        end: datetime | str | None = None,
        timezone: str = "UTC",
        *,
        every: int = 1,
    ) -> None:
        if type(every) is not int or every < 1 or every >= 60 or 60 % every:
            raise DefinitionError(
                f"MinutelyPartitions(every={every!r}): minutes have to divide the hour: 1, 2, 3, 4, 5, 6, 10, 12, "
                "15, 20 or 30. For other lengths see CronPartitions."
            )
        self.every = every
        super().__init__(start, end, timezone)

    def cadence(self) -> dict[str, object]:
        """Describe what a key means; the length belongs to it."""
        return {**super().cadence(), "every": self.every}


class CronPartitions(TimePartitions[datetime]):
    """One partition from each tick of a cron expression to the next; the key is the tick, an aware `datetime`.

    Ticks are those of a schedule with this expression, also where the clock is changed.

    Args:
        cron: five fields, such as `0 6 * * 1-5`.
        start: the first tick, as a datetime or as text; without a zone it is read on the clock of `timezone`.
        end: the last tick, included; None for no end.
        timezone: IANA name of the zone.

    Raises:
        DefinitionError: the expression, the zone or a tick cannot be used, or `end` comes before `start`.

    Example:
        >>> shifts = CronPartitions("0 6,14,22 * * *", "2024-01-01T06:00", timezone="Europe/Berlin")
        >>> shifts.label(shifts.last(datetime.fromisoformat("2024-01-01T22:30+01:00")))
        '2024-01-01T14:00+01:00'
    """

    kind = "cron"

    def __init__(
        self,
        cron: str,
        start: datetime | str,
        end: datetime | str | None = None,
        timezone: str = "UTC",
    ) -> None:
        self.times = Cron(cron, timezone)
        super().__init__(start, end, timezone)

    def window(self, key: Partition) -> TimeWindow:
        """Return the time from this tick to the next."""
        start = self._coerce(key)
        return TimeWindow(start, self._adjacent(start, 1) or datetime.max.replace(tzinfo=start.tzinfo))

    def containing(self, instant: datetime) -> datetime | None:
        """Return the last tick at or before an instant."""
        tick = self.times.last(_FIRST, fixed(instant))
        return None if tick is None else in_zone(tick, self.zone)

    def cadence(self) -> dict[str, object]:
        """Describe what a key means; the expression belongs to it."""
        return {**super().cadence(), "cron": self.times.expression}

    def _adjacent(self, key: datetime, step: int) -> datetime | None:
        if step < 0:
            return self.containing(key - timedelta(microseconds=1))
        following = self.times.next(key, 1)
        return in_zone(following[0], self.zone) if following else None

    def _coerce(self, value: object) -> datetime:
        if type(value) is not datetime or value.tzinfo is None:
            raise UnknownPartitionError(value, hint="Keys are datetimes with a time zone, the ticks of the cron.")
        instant = in_zone(fixed(value), self.zone)
        below = self.containing(instant)
        if below != instant:
            above = self._adjacent(instant, 1)
            nearest = " or ".join(self._text(one) for one in (below, above) if one is not None)
            raise UnknownPartitionError(self._text(instant), hint=f"It is no tick; the nearest is {nearest}.")
        return instant

    def _boundary(self, name: str, value: datetime | str) -> datetime:
        return super()._boundary(name, value if isinstance(value, str) else value.isoformat())

    def _read(self, text: str) -> datetime:
        try:
            wall = datetime.fromisoformat(text)
        except ValueError as error:
            hint = "Write it as 2024-01-01T05:00, with an offset such as +01:00 where it is needed."
            raise UnknownPartitionError(text, hint=hint) from error
        if wall.tzinfo is not None:
            return self._coerce(wall)
        read = [wall.replace(tzinfo=timezone(offset)) for offset in wall_offsets(wall, self.zone)]
        ticks = {one for one in read if self.containing(one) == one}
        if len(ticks) > 1:
            raise UnknownPartitionError(text, hint=f"{self.timezone} has this time twice: write its offset.")
        return self._coerce(ticks.pop() if ticks else read[0])

    def _text(self, key: datetime) -> str:
        return key.isoformat(timespec="auto" if key.second or key.microsecond else "minutes")


def _skips(value: datetime) -> bool:
    """Whether the zone of the value never shows this wall time."""
    assert value.tzinfo is not None  # checked before
    shown = in_zone(fixed(value), value.tzinfo)  # fixed, or Python would not convert at all
    return shown.replace(tzinfo=None) != value.replace(tzinfo=None)
