"""Named limits: how many steps at once, how many in a time, or none after so many failures in a row.

`Rate`, `Breaker` and plain numbers declare them; `Circuit` is the state of a breaker as a value: who may start,
and what an end changes. Stores keep that state under a lock and use the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from flowstone.errors import DefinitionError

_RATE = re.compile(
    r"\s*(?P<count>\d+)\s*/\s*(?:(?P<every>\d+)\s*)?(?P<unit>second|minute|hour|day|s|min|h|d)s?\s*"
)
_BREAKER = re.compile(
    r"\s*breaker\s+(?P<failures>\d{1,9})\s+failures?\s*/\s*(?P<number>\d{1,9}(?:\.\d{1,9})?)?\s*"
    r"(?P<unit>second|minute|hour|day|s|min|h|d)s?\s*"
)
_SECONDS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}

_MIN_WAIT_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` starts in any window of `per_seconds`, wherever the window begins (a sliding log).

    Args:
        count: starts.
        per_seconds: length of the window.

    Example:
        >>> Rate(2, 60.0).take([100.0, 130.0], now=150.0)
        10.0
    """

    count: int
    per_seconds: float

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


@dataclass(frozen=True, slots=True)
class Breaker:
    """Nothing starts for `reset_seconds` after `failures` in a row, then one step is tried; see `Circuit`.

    Args:
        failures: failed attempts in a row, of all steps that have the breaker.
        reset_seconds: how long nothing starts.

    Example:
        >>> Breaker(5, 60.0).text
        'breaker 5 failures/60 s'
    """

    failures: int
    reset_seconds: float

    @property
    def text(self) -> str:
        """As it is written; `parse_limit` reads it."""
        return f"breaker {self.failures} failures/{f'{self.reset_seconds:.6f}'.rstrip('0').rstrip('.')} s"


type Limit = int | Rate | Breaker

MAX_RATE = 10_000
"""Most starts in a window: each is remembered until the window has passed it."""


def parse_limit(value: int | str) -> Limit:
    """Read a limit as it is written in `@asset(concurrency={...})`.

    Args:
        value: a number of steps at once, a rate such as `10/minute`, `3/second`, `100/2 hours`, or a breaker such
            as `breaker 5 failures/60 s`.

    Raises:
        DefinitionError: it is none of them.

    Example:
        >>> parse_limit(4), parse_limit("10/minute")
        (4, Rate(count=10, per_seconds=60.0))
        >>> parse_limit("breaker 5 failures/minute")
        Breaker(failures=5, reset_seconds=60.0)
    """
    if type(value) is int and value >= 1:
        return value
    if isinstance(value, str):
        match = _RATE.fullmatch(value)
        if match and 1 <= int(match["count"]) <= MAX_RATE and int(match["every"] or 1) >= 1:
            return Rate(int(match["count"]), float(_SECONDS[match["unit"]] * int(match["every"] or 1)))
        match = _BREAKER.fullmatch(value)
        if match and int(match["failures"]) >= 1 and float(match["number"] or 1) > 0:
            return Breaker(int(match["failures"]), _SECONDS[match["unit"]] * float(match["number"] or 1))
    raise DefinitionError(
        f"The limit {value!r} cannot be understood: give a number of steps at once (4), a rate ('10/minute') "
        "or a breaker ('breaker 5 failures/60 s')."
    )


def check_limits(declared: Mapping[str, Mapping[str, int | str]]) -> None:
    """Refuse limits on which assets disagree: a name stands for one limit in the whole fleet.

    Args:
        declared: asset name to its limits.

    Raises:
        DefinitionError: naming the limit and both assets.

    Example:
        >>> check_limits({"a": {"warehouse": 4}, "b": {"warehouse": 4}})
    """
    first: dict[str, tuple[str, int | str]] = {}
    for asset, limits in declared.items():
        for name, value in limits.items():
            known = first.setdefault(name, (asset, value))
            if parse_limit(known[1]) != parse_limit(value):
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
            self.open_until, self.next_step = now + breaker.reset_seconds, None


def describe_open(name: str, failures: int, until: datetime | None) -> str:
    """Return what people read about a breaker that is not closed; `until` is None when a step may be tried.

    Example:
        >>> describe_open("service", 5, datetime(2024, 1, 1, 12, 30, tzinfo=UTC))
        "the breaker 'service' is open until 2024-01-01 12:30:00 UTC after 5 failures in a row"
    """
    number = "1 failure" if failures == 1 else f"{failures} failures in a row"
    if until is None:
        return f"the breaker {name!r} tries one step at a time after {number}"
    return f"the breaker {name!r} is open until {until.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC after {number}"
