"""Cron expressions on the clock of a time zone, as instants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile

from flowstone.core.zones import SECOND, first_showing, in_zone, load_zone, next_change
from flowstone.errors import DefinitionError, did_you_mean

_FIELDS = (
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day-of-month", "1 to 31, L, LW"),
    ("month", "1 to 12, JAN to DEC"),
    ("day-of-week", "0 to 7 (0 and 7 are Sunday), SUN to SAT, 5L, 1#2"),
)
_NAMES = {
    "month": ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    "day-of-week": ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"),
}
_SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_REFERENCE = datetime(2024, 1, 1, tzinfo=UTC)


class Cron:
    """A cron expression, and the zone whose clock it speaks of.

    Five fields (minute, hour, day of month, month, day of week), or six with the second in front. When the
    clock is changed, the convention of Debian's cron holds:

    - times that are named (`30 2 * * *`) happen exactly once on every day: where the clock skips them, at
      the moment of the change, where they occur twice, the first time;
    - expressions whose minute or hour begins with a star (`0 * * * *`), and those with six fields, follow
      the clock: skipped times do not happen, repeated ones happen twice, so that an hourly job runs in
      every hour that passes.

    Args:
        expression: the five or six fields.
        timezone: IANA name of the zone.

    Raises:
        DefinitionError: the expression cannot be read, never comes true, or there is no such zone.

    Example:
        >>> cron = Cron("30 2 * * *", "Europe/Berlin")
        >>> [tick.isoformat() for tick in cron.next(datetime(2024, 3, 30, tzinfo=UTC), 2)]
        ['2024-03-30T01:30:00+00:00', '2024-03-31T01:00:00+00:00']
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        self.zone = load_zone(timezone)
        self.timezone = timezone
        self.expression = _checked(expression)
        fields = self.expression.split()
        self._named_times = len(fields) == 5 and not any(field.startswith("*") for field in fields[:2])
        if not _comes_true(self.expression):
            raise DefinitionError(f"cron={expression!r}: there is no such day in 50 years. Check day and month.")

    @property
    def fingerprint(self) -> str:
        """What changes when the instants change."""
        return f"{self.expression} {self.timezone}"

    @property
    def words(self) -> str:
        """The expression as people say it; the zone is not in it.

        Example:
            >>> Cron("*/15 9-17 * * MON-FRI").words
            'Every 15th minute from 09:00 through 17:59 on Monday through Friday'
            >>> Cron("0 0 13 * FRI").words
            'At 00:00 on the 13th day of month or on Friday'
        """
        from cronsim import CronSim

        text = str(CronSim(self.expression, _REFERENCE).explain())
        day, weekday = self.expression.split()[-3], self.expression.split()[-1]
        # of two days that are given, either will do; the library says "and"
        return text if day.startswith("*") or weekday.startswith("*") else text.replace(" and on ", " or on ")

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the instants after this one, in UTC, strictly increasing, without end as a rule.

        Args:
            instant: an aware datetime; itself not among them.
        """
        last = instant.astimezone(UTC)
        found = self._named(last) if self._named_times else self._shown(last)
        for tick in found:
            # named times that are skipped together all fall on the one moment of the change
            if tick > last:
                yield tick
                last = tick

    def next(self, instant: datetime, number: int) -> list[datetime]:
        """Return the next instants after this one."""
        return list(islice(self.after(instant), number))

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the instants in (start, end]."""
        return takewhile(lambda tick: tick <= end, self.after(start))

    def last(self, start: datetime, end: datetime) -> datetime | None:
        """Return the last instant in (start, end], however far apart these are."""
        span = timedelta(hours=1)
        while True:
            begin = max(start, end - span) if end - start > span else start
            found = None
            for found in self.between(begin, end):  # noqa: B007 - the last one is needed
                pass
            if found is not None or begin == start:
                return found
            span *= 24

    def _named(self, after: datetime) -> Iterator[datetime]:
        for wall in _walls(self.expression, in_zone(after, self.zone)):
            yield first_showing(wall, self.zone).astimezone(UTC)

    def _shown(self, after: datetime) -> Iterator[datetime]:
        """Yield every instant at which the clock shows a time that matches, one stretch of equal offset a time."""
        known = begin = in_zone(after, self.zone)
        while True:
            change = None
            for wall in _walls(self.expression, begin):
                tick = wall.replace(tzinfo=begin.tzinfo)
                change = next_change(known, tick, self.zone)
                if change is not None:
                    break
                yield tick.astimezone(UTC)
                known = tick
            if change is None:
                return
            known, begin = change, change - SECOND

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.timezone!r})"


def _walls(expression: str, after: datetime) -> Iterator[datetime]:
    """Yield the naive times that match, after the wall clock of a datetime."""
    from cronsim import CronSim

    try:
        yield from CronSim(expression, after.replace(tzinfo=None))
    except OverflowError:  # the end of the calendar
        return


def _comes_true(expression: str) -> bool:
    from cronsim import CronSimError

    try:
        return next(_walls(expression, _REFERENCE), None) is not None
    except CronSimError:  # it sees some of them at once, such as February 30
        return False


def _checked(expression: str) -> str:
    given: object = expression
    if not isinstance(given, str) or not given.strip():
        raise DefinitionError(f"cron={expression!r}: give five fields, such as '0 6 * * *' for 6:00 every day.")
    text = " ".join(expression.split())
    if text.startswith("@"):
        instead = _SHORTHANDS.get(text.lower())
        hint = f" Write {instead!r}." if instead else did_you_mean(text, _SHORTHANDS)
        raise DefinitionError(f"cron={expression!r}: shorthands are not read.{hint}")
    fields = text.split()
    if len(fields) not in (5, 6):
        raise DefinitionError(
            f"cron={expression!r} has {len(fields)} fields. Give five (minute, hour, day of month, month, day of "
            "week), such as '0 6 * * *' for 6:00 every day, or six with the second in front."
        )
    for field, (name, allowed) in zip(fields, _FIELDS[-len(fields) :], strict=True):
        _check_field(expression, field, name, allowed)
    return text.upper()


def _check_field(expression: str, field: str, name: str, allowed: str) -> None:
    """Read one field by itself, with the others open, so that the error can name it."""
    from cronsim import CronSim, CronSimError

    alone = ["*"] * 6
    alone[[one for one, _ in _FIELDS].index(name)] = field
    try:
        CronSim(" ".join(alone), _REFERENCE)
    except (CronSimError, ValueError, TypeError, AssertionError) as error:
        hint = did_you_mean(field.upper(), _NAMES.get(name, ()))
        raise DefinitionError(
            f"cron={expression!r}: {field!r} is no {name}.{hint} Use {allowed}, '*', lists (1,2), "
            "ranges (1-5), steps (*/10)."
        ) from error
