"""The state of a circuit breaker that holds over the fleet: who may start, and what an end changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from flowstone.core.limits import Breaker


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
