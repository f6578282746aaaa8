"""Partitions by the hours and minutes that a clock shows, and by the ticks of a cron expression."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

from flowstone.core.automation.cron import Cron
from flowstone.core.partition import Partition
from flowstone.core.timeline import TimePartitions, TimeWindow
from flowstone.core.zones import fixed, in_zone, next_hour, start_of_hour, wall_offsets
from flowstone.errors import DefinitionError, PartitionError, UnknownPartitionError

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
