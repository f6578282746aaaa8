"""Named limits: how many steps at once, how many in a time, or none after so many failures in a row.

`Rate`, `Breaker` and plain numbers declare them, as objects; text such as `10/minute` is read where a user gives
it and where a table keeps it. `Circuit` is the state of a breaker as a value: who may start, and what an end
changes. Stores keep that state under a lock, and one process in memory; both use the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from flowstone.core.declaring import duration, shown, whole_number
from flowstone.core.zones import utc_text
from flowstone.errors import DefinitionError

_UNIT = r"(?P<unit>second|minute|hour|day|s|min|h|d)s?\s*"
_PERIOD = re.compile(r"\s*(?P<number>\d{1,9}(?:\.\d{1,9})?)?\s*" + _UNIT)
_RATE = re.compile(r"\s*(?P<count>\d{1,9})\s*/(?P<period>.*)")
_BREAKER = re.compile(r"\s*breaker\s+(?P<failures>\d{1,9})\s+failures?\s*/(?P<period>.*)")
_SECONDS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}

MAX_RATE = 10_000
"""Most starts in a window: each is remembered until the window has passed it."""
_MAX_FAILURES = 999_999_999
_MIN_SECONDS = 1e-6
_MAX_SECONDS = 999_999_999.0
_MIN_WAIT_SECONDS = 1e-6
_MAX_SLOTS = 2**63 - 1


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Rate:
    """At most `count` starts in any window of time, wherever the window begins (a sliding log).

    Args:
        count: starts, from 1 to 10,000.
        per: length of the window: `"minute"`, `"2 hours"`, seconds or a timedelta.

    Raises:
        DefinitionError: one of them cannot work.

    Example:
        >>> Rate(10, "minute"), Rate(10, "minute").per_seconds, str(Rate(100, 7200))
        (Rate(10, 'minute'), 60.0, '100/2 hours')
    """

    count: int
    per_seconds: float

    def __init__(self, count: int, per: str | float | timedelta) -> None:
        starts = whole_number(count, minimum=1, maximum=MAX_RATE)
        seconds = _seconds(per)
        if starts is None or seconds is None:
            raise DefinitionError(
                f"Rate({shown(count)}, {shown(per)}): give a whole number of starts from 1 to {MAX_RATE:,}, and "
                "a time such as 'minute', '2 hours', a timedelta or seconds above 0."
            )
        object.__setattr__(self, "count", starts)
        object.__setattr__(self, "per_seconds", seconds)

    def __repr__(self) -> str:
        return f"Rate({self.count}, {_period(self.per_seconds)!r})"

    def __str__(self) -> str:
        """Return it as `parse_limit` reads it."""
        return f"{self.count}/{_period(self.per_seconds)}"

    def take(self, starts: list[float], *, now: float) -> float:
        """Try to start something now.

        Args:
            starts: times of earlier starts in seconds, oldest first; brought up to date in place.
            now: current time in seconds.

        Returns:
            0 when it may start (it is noted then), else the seconds until the next one may.
        """
        wait = self.pause(starts, now=now)
        if not wait:
            starts.append(now)
        return wait

    def pause(self, starts: list[float], *, now: float) -> float:
        """Return the seconds until something may start, 0 for now; forgets starts that no window holds.

        Args:
            starts: see `take`.
            now: see `take`.
        """
        gone = now - self.per_seconds
        del starts[: next((index for index, start in enumerate(starts) if start > gone), len(starts))]
        if len(starts) < self.count:
            return 0.0
        # never rounded down to 0, which would say that it may start
        return max(_MIN_WAIT_SECONDS, starts[-self.count] + self.per_seconds - now)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Breaker:
    """Nothing starts for a time after `failures` in a row; then one step is tried before the others go on.

    Args:
        failures: failed attempts in a row, of all steps that have the breaker.
        seconds: how long nothing starts, in seconds or as a timedelta.

    Raises:
        DefinitionError: one of them cannot work.

    Example:
        >>> Breaker(failures=5, seconds=60), str(Breaker(failures=5, seconds=60))
        (Breaker(failures=5, seconds=60.0), 'breaker 5 failures/60 s')
    """

    failures: int
    seconds: float

    def __init__(self, failures: int = 5, seconds: float | timedelta = 60.0) -> None:
        number = whole_number(failures, minimum=1, maximum=_MAX_FAILURES)
        length = duration(seconds, minimum=_MIN_SECONDS, maximum=_MAX_SECONDS)
        if number is None or length is None:
            raise DefinitionError(
                f"Breaker(failures={shown(failures)}, seconds={shown(seconds)}): give a whole number from 1 "
                "on, and a timedelta or seconds above 0."
            )
        object.__setattr__(self, "failures", number)
        object.__setattr__(self, "seconds", length)

    def __repr__(self) -> str:
        return f"Breaker(failures={self.failures}, seconds={self.seconds})"

    def __str__(self) -> str:
        """Return it as `parse_limit` reads it."""
        return f"breaker {self.failures} failures/{_decimal(self.seconds)} s"


type Limit = int | Rate | Breaker
"""Steps at once, starts in a time, or a pause after failures."""
type LimitLike = Limit | str
"""A limit as a user gives it: an object, or text that `parse_limit` reads."""


def parse_limit(value: object) -> Limit:
    """Return a limit as an object.

    Args:
        value: a number of steps at once, a `Rate` or text such as `10/minute`, `3/second`, `100/2 hours`, a
            `Breaker` or text such as `breaker 5 failures/60 s`.

    Raises:
        DefinitionError: it is none of them.

    Example:
        >>> parse_limit(4), parse_limit("10/minute")
        (4, Rate(10, 'minute'))
        >>> parse_limit("breaker 5 failures/minute")
        Breaker(failures=5, seconds=60.0)
    """
    if isinstance(value, Rate | Breaker):
        return value
    if isinstance(value, str):
        if (found := _from_text(value)) is not None:
            return found
    elif (slots := whole_number(value, minimum=1, maximum=_MAX_SLOTS)) is not None:
        return slots
    raise DefinitionError(
        f"The limit {shown(value)} cannot be understood: give a number of steps at once (4), a rate "
        "(Rate(10, 'minute') or '10/minute') or a breaker (Breaker(failures=5, seconds=60) or 'breaker 5 "
        "failures/60 s'); units are second, minute, hour and day."
    )


def parse_limits(given: Mapping[str, LimitLike] | None) -> dict[str, Limit]:
    """Return limits by name as objects; see `parse_limit`.

    Example:
        >>> parse_limits({"service": "10/minute"})
        {'service': Rate(10, 'minute')}
    """
    return {name: parse_limit(value) for name, value in given.items()} if given else {}


def stored_limits(limits: Mapping[str, Limit] | None) -> dict[str, int | str] | None:
    """Return limits as a table keeps them, None when there are none; `parse_limits` reads them.

    Example:
        >>> stored_limits({"warehouse": 4, "service": Rate(10, "minute")})
        {'warehouse': 4, 'service': '10/minute'}
    """
    if not limits:
        return None
    return {name: limit if isinstance(limit, int) else str(limit) for name, limit in limits.items()}


def _from_text(text: str) -> Rate | Breaker | None:
    if match := _RATE.fullmatch(text):
        count, seconds = int(match["count"]), _seconds(match["period"])
        return Rate(count, seconds) if seconds is not None and 1 <= count <= MAX_RATE else None
    if match := _BREAKER.fullmatch(text):
        failures, seconds = int(match["failures"]), _seconds(match["period"])
        return Breaker(failures, seconds) if seconds is not None and failures else None
    return None


def _seconds(per: object) -> float | None:
    """Return a time as seconds; text is a unit, or a number and a unit."""
    if not isinstance(per, str):
        return duration(per, minimum=_MIN_SECONDS, maximum=_MAX_SECONDS)
    match = _PERIOD.fullmatch(per)
    if match is None:
        return None
    return duration(
        float(match["number"] or 1) * _SECONDS[match["unit"]], minimum=_MIN_SECONDS, maximum=_MAX_SECONDS
    )


def _period(seconds: float) -> str:
    """Return a time as `_seconds` reads it, in the largest unit of which it is a whole number."""
    for unit in ("day", "hour", "minute"):
        number, rest = divmod(seconds, _SECONDS[unit])
        if number and not rest:
            return unit if number == 1 else f"{number:.0f} {unit}s"
    return "second" if seconds == 1 else f"{_decimal(seconds)} seconds"


def _decimal(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def check_limits(declared: Mapping[str, Mapping[str, Limit]]) -> None:
    """Refuse limits on which assets disagree: a name stands for one limit in the whole fleet.

    Args:
        declared: asset name to its limits.

    Raises:
        DefinitionError: naming the limit and both assets.

    Example:
        >>> check_limits({"a": {"warehouse": 4}, "b": {"warehouse": 4}})
    """
    first: dict[str, tuple[str, Limit]] = {}
    for asset, limits in declared.items():
        for name, value in limits.items():
            known = first.setdefault(name, (asset, value))
            if known[1] != value:
                raise DefinitionError(
                    f"The limit {name!r} is {known[1]!r} for asset {known[0]!r} but {value!r} for {asset!r}. "
                    "A limit holds for the whole fleet: give it one value."
                )


@dataclass(slots=True)
class Circuit:
    """Closed, open for a time, or half-open: the time is over and one step at a time is tried.

    Args:
        failures: failed attempts since the last success.
        open_until: when a step may be tried, in seconds since 1970; None while closed.
        next_step: the step that tries again at that time.

    Example:
        >>> circuit = Circuit()
        >>> for _ in range(3):
        ...     circuit.end(Breaker(3, 60.0), failed=True, tried=False, now=100.0)
        >>> circuit.pause(7, now=110.0, trying=False), circuit.pause(8, now=110.0, trying=False)
        (50.0, None)
        >>> circuit.pause(7, now=160.0, trying=False)
        0.0
        >>> circuit.end(Breaker(3, 60.0), failed=False, tried=True, now=161.0)
        >>> circuit
        Circuit(failures=0, open_until=None, next_step=None)
    """

    failures: int = 0
    open_until: float | None = None
    next_step: int | None = None

    def pause(self, step_id: int, *, now: float, trying: bool) -> float | None:
        """Return the seconds until a step tries again: 0 when it may start, None when it is to rest until woken.

        One step gets a time, the others rest: a thousand that try at once would only get in each other's way.

        Args:
            step_id: the step that wants to start.
            now: current time in seconds since 1970.
            trying: whether a step is being tried now.
        """
        if self.open_until is None:
            return 0.0
        if now >= self.open_until:
            return None if trying else 0.0
        if self.next_step not in (None, step_id):
            return None
        self.next_step = step_id
        return self.open_until - now

    def end(self, breaker: Breaker, *, failed: bool, tried: bool, now: float) -> None:
        """Count the end of an attempt.

        While open, only the step that was tried decides: what had started before says nothing about now.

        Args:
            breaker: the limit as the step has it.
            failed: whether the attempt failed; else it succeeded.
            tried: whether it was let through while half-open.
            now: see `pause`.
        """
        if self.open_until is not None and not tried:
            return
        if not failed:
            self.failures, self.open_until, self.next_step = 0, None, None
            return
        self.failures += 1
        if tried or self.failures >= breaker.failures:
            self.open_until, self.next_step = now + breaker.seconds, None


def describe_open(name: str, failures: int, until: datetime | None) -> str:
    """Return what people read about a breaker that is not closed; `until` is None when a step may be tried.

    Example:
        >>> from datetime import UTC
        >>> describe_open("service", 5, datetime(2024, 1, 1, 12, 30, tzinfo=UTC))
        "the breaker 'service' is open until 2024-01-01 12:30:00 UTC after 5 failures in a row"
    """
    number = "1 failure" if failures == 1 else f"{failures} failures in a row"
    if until is None:
        return f"the breaker {name!r} tries one step at a time after {number}"
    return f"the breaker {name!r} is open until {utc_text(until)} after {number}"
