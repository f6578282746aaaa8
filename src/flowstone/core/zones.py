"""Arithmetic on the clock of a time zone: where a local day or hour begins, and when the clock is changed.

Instants are aware datetimes with a *fixed* offset. Python compares and subtracts two datetimes of one
`ZoneInfo` by their wall clocks: the two hours of an autumn overlap would be equal (and collide as keys of a
dict), and a day of 23 hours would last 24. With fixed offsets `==`, `<`, `hash` and `-` speak of real time.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from flowstone.errors import DefinitionError, PartitionError, did_you_mean

SECOND = timedelta(seconds=1)
_WEEK = timedelta(days=7)


def utc_text(instant: datetime) -> str:
    """Return an instant as texts for people name it.

    Example:
        >>> utc_text(datetime(2024, 1, 1, 12, 30, tzinfo=UTC))
        '2024-01-01 12:30:00 UTC'
    """
    try:
        return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:  # before the year 1, or after 9999, there
        return instant.isoformat()


def load_zone(name: str) -> tzinfo:
    """Return the time zone with this IANA name.

    Args:
        name: such as "Europe/Berlin" or "UTC".

    Raises:
        DefinitionError: no such zone is known on this machine.

    Example:
        >>> load_zone("UTC")
        datetime.timezone.utc
    """
    if name == "UTC":  # works without a time zone database
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError, AttributeError) as error:
        hint = did_you_mean(str(name), available_timezones())
        raise DefinitionError(
            f"There is no time zone {name!r}.{hint} Use an IANA name such as 'Europe/Berlin'; if the machine "
            "has no time zone database, install the package tzdata."
        ) from error


def fixed(instant: datetime) -> datetime:
    """Return the same instant and wall clock with a fixed offset in place of the zone.

    Args:
        instant: an aware datetime.

    Raises:
        PartitionError: the datetime is naive.

    Example:
        >>> fixed(datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))).isoformat()
        '2024-07-01T00:00:00+02:00'
    """
    offset = instant.utcoffset()
    if offset is None:
        raise PartitionError(
            f"The datetime {instant.isoformat()!r} has no time zone, so it names no instant. Write "
            "value.replace(tzinfo=ZoneInfo('Europe/Berlin')), or tzinfo=datetime.UTC."
        )
    return instant.replace(tzinfo=timezone(offset), fold=0)


def in_zone(instant: datetime, zone: tzinfo) -> datetime:
    """Return the instant as the clock of the zone shows it, with the offset of that moment.

    At the very ends of the calendar, where the zone's clock would read the year 0 or 10000, the instant comes
    back in its own offset.

    Example:
        >>> in_zone(datetime(2024, 7, 1, tzinfo=UTC), ZoneInfo("Europe/Berlin")).isoformat()
        '2024-07-01T02:00:00+02:00'
    """
    try:
        return fixed(instant.astimezone(zone))
    except OverflowError:
        return fixed(instant)


def wall_offsets(wall: datetime, zone: tzinfo) -> tuple[timedelta, timedelta]:
    """Return the offsets of a naive wall time when it is read before and after a change of the clock.

    Both are equal on an ordinary day. The first is greater when the time occurs twice, smaller when the clock
    skips it.

    Example:
        >>> [str(offset) for offset in wall_offsets(datetime(2024, 10, 27, 2), ZoneInfo("Europe/Berlin"))]
        ['2:00:00', '1:00:00']
    """
    local = wall.replace(tzinfo=zone, fold=0)
    first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
    assert first is not None and second is not None  # noqa: PT018 - every loaded zone has offsets
    return first, second


@lru_cache(maxsize=4096)
def start_of_day(day: date, zone: tzinfo) -> datetime:
    """Return the first instant of a local day; remembered, because windows are asked for in a row.

    That is midnight; the first one if midnight occurs twice, and the change of the clock if it is skipped.

    Example:
        >>> start_of_day(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo")).isoformat()
        '2018-11-04T01:00:00-02:00'
    """
    return first_showing(datetime(day.year, day.month, day.day), zone)


def first_showing(wall: datetime, zone: tzinfo) -> datetime:
    """Return the first instant at which the zone's clock shows a naive wall time.

    That is the earlier one if the time occurs twice, and the change of the clock if it is skipped.

    Example:
        >>> first_showing(datetime(2024, 3, 31, 2, 30), ZoneInfo("Europe/Berlin")).isoformat()
        '2024-03-31T03:00:00+02:00'
    """
    before, after = wall_offsets(wall, zone)
    instant = wall.replace(tzinfo=timezone(before))
    if before >= after:
        return instant
    return _clock_change(wall.replace(tzinfo=timezone(after)), instant, zone)


def next_change(instant: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """Return when the clock is changed first in (instant, until], or None.

    Two changes that undo each other within a week are not noticed; no zone has such.

    Example:
        >>> next_change(datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC),
        ...             ZoneInfo("Europe/Berlin")).isoformat()
        '2024-03-31T03:00:00+02:00'
    """
    before = in_zone(instant, zone)
    while before < until:
        after = in_zone(min(before + _WEEK, until), zone)
        if after.utcoffset() != before.utcoffset():
            return _clock_change(before, after, zone)
        before = after
    return None


def start_of_hour(instant: datetime, zone: tzinfo, minutes: int = 60) -> datetime:
    """Return when the local hour around an instant began: at a full hour, or where the clock was changed.

    Args:
        instant: an aware datetime.
        zone: whose clock decides.
        minutes: length of the windows in place of an hour; it divides 60.

    Example:
        >>> instant = datetime(2024, 10, 5, 15, 50, tzinfo=UTC)
        >>> start_of_hour(instant, ZoneInfo("Australia/Lord_Howe")).isoformat()
        '2024-10-06T02:30:00+11:00'
    """
    local = in_zone(instant, zone)
    full = local.replace(minute=local.minute - local.minute % minutes, second=0, microsecond=0)
    began = in_zone(full, zone)
    return began if began.utcoffset() == local.utcoffset() else _clock_change(began, local, zone)


def next_hour(start: datetime, zone: tzinfo, minutes: int = 60) -> datetime | None:
    """Return when the local hour that begins at `start` is over, or None at the end of the calendar.

    Args:
        start: where it begins.
        zone: whose clock decides.
        minutes: see `start_of_hour`.

    Example:
        >>> next_hour(datetime(2024, 10, 5, 15, tzinfo=UTC), ZoneInfo("Australia/Lord_Howe")).isoformat()
        '2024-10-06T02:30:00+11:00'
    """
    local = in_zone(start, zone)
    try:
        full = local.replace(minute=local.minute - local.minute % minutes, second=0, microsecond=0)
        end = in_zone(full + timedelta(minutes=minutes), zone)
    except OverflowError:
        return None
    return end if end.utcoffset() == local.utcoffset() else _clock_change(local, end, zone)


def _clock_change(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """Return the instant in (before, after] from which on the offset is the one at `after`."""
    offset = in_zone(after, zone).utcoffset()
    low, high = 0, -(-(after - before) // SECOND)
    while high - low > 1:
        middle = (low + high) // 2
        if in_zone(before + middle * SECOND, zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return in_zone(before + high * SECOND, zone)
