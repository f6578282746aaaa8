"""Partitions by the hours that the clock of a time zone shows."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

from flowstone.core.partition import Partition
from flowstone.core.timeline import TimePartitions, TimeWindow
from flowstone.core.zones import fixed, in_zone, next_hour, start_of_hour, wall_offsets
from flowstone.errors import PartitionError, UnknownPartitionError


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

    def window(self, key: Partition) -> TimeWindow:
        """Return the time from this hour to the next."""
        start = self._coerce(key)
        return TimeWindow(start, next_hour(start, self.zone) or datetime.max.replace(tzinfo=start.tzinfo))

    def containing(self, instant: datetime) -> datetime | None:
        """Return the key of the hour around an instant."""
        return start_of_hour(fixed(instant), self.zone)

    def _adjacent(self, key: datetime, step: int) -> datetime | None:
        if step > 0:
            return next_hour(key, self.zone)
        try:
            return start_of_hour(key - timedelta(microseconds=1), self.zone)
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
        began = start_of_hour(instant, self.zone)
        if began != instant:
            later = next_hour(began, self.zone)
            nearest = self._text(began) + (f" or {self._text(later)}" if later else "")
            raise UnknownPartitionError(
                value.isoformat(), hint=f"It is not a full hour; the nearest is {nearest}."
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


def _skips(value: datetime) -> bool:
    """Whether the zone of the value never shows this wall time."""
    assert value.tzinfo is not None  # checked before
    shown = in_zone(fixed(value), value.tzinfo)  # fixed, or Python would not convert at all
    return shown.replace(tzinfo=None) != value.replace(tzinfo=None)
