"""Partitions by days, weeks and months on the clock of a time zone."""

from __future__ import annotations

from abc import abstractmethod
from datetime import date, datetime, timedelta
from typing import Literal, get_args

from flowstone.core.partition import Partition
from flowstone.core.timeline import TimePartitions, TimeWindow
from flowstone.core.zones import fixed, in_zone, start_of_day, wall_offsets
from flowstone.errors import DefinitionError, UnknownPartitionError, did_you_mean

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
