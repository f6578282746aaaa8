"""How often, and after how long, a failed attempt is repeated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import UnionType
from typing import get_args

from flowstone.core.declaring import (
    checks_options,
    duration,
    is_coroutine_function,
    number,
    shown,
    warn_of_milliseconds,
    whole_number,
)
from flowstone.errors import DefinitionError, RetryPolicyError

MAX_ATTEMPTS = 1000

type ExceptionClasses = type[BaseException] | Iterable[type[BaseException]]
type Backoff = Callable[[int, BaseException | None], float | timedelta]
"""Says how long to wait after an attempt, in place of the figures of the policy."""


@checks_options
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again: exponential backoff with jitter, or what a function says.

    The delay after attempt n is `backoff_seconds * factor ** (n - 1)`, at most `max_backoff_seconds`,
    moved by up to `jitter` of itself either way. With `backoff` it is what that function returns, as it is.

    Args:
        max_attempts: attempts in all, at least 1.
        backoff_seconds: delay after the first attempt, a timedelta or seconds.
        factor: by what the delay grows with each attempt.
        max_backoff_seconds: longest delay, a timedelta or seconds.
        jitter: largest random share added or taken, 0 to 1.
        retry_on: exception classes worth another attempt, one or several.
        fatal_on: exception classes that never are, even when `retry_on` matches.
        backoff: called as `backoff(attempt, error)` with the number of the attempt that failed, from 1, and what
            it raised; returns the delay, a timedelta or seconds from 0 to a year. For servers that say when to
            come again (`Retry-After`). What it raises, or returns wrong, fails the step.

    Raises:
        DefinitionError: a figure is out of range, or of another type.

    Example:
        >>> policy = RetryPolicy()
        >>> [policy.delay_seconds(attempt) for attempt in (1, 2, 3, 4, 5)]
        [10.0, 30.0, 90.0, 270.0, 300.0]
        >>> RetryPolicy(backoff=lambda attempt, error: 7 * attempt).delay_seconds(2)
        14.0
    """

    max_attempts: int = 3
    backoff_seconds: float | timedelta = 10.0
    factor: float = 3.0
    max_backoff_seconds: float | timedelta = 300.0
    jitter: float = 0.1
    retry_on: ExceptionClasses = (Exception,)
    fatal_on: ExceptionClasses = ()
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        attempts = whole_number(self.max_attempts, minimum=1, maximum=MAX_ATTEMPTS)
        if attempts is None:
            raise _wrong("max_attempts", self.max_attempts, f"a whole number from 1 to {MAX_ATTEMPTS:,}")
        object.__setattr__(self, "max_attempts", attempts)
        for name in ("backoff_seconds", "max_backoff_seconds"):
            given = getattr(self, name)
            warn_of_milliseconds(name, given, duration(given) or 0.0)
            self._set(name, duration(getattr(self, name)), "a timedelta or seconds, from 0 to a year")
        factor, jitter = number(self.factor), number(self.jitter)
        self._set("factor", factor if factor is not None and factor >= 1 else None, "a number from 1 on")
        self._set("jitter", jitter if jitter is not None and 0 <= jitter <= 1 else None, "a share from 0 to 1")
        for name in ("retry_on", "fatal_on"):
            self._set(
                name, _classes(getattr(self, name)), "exception classes, such as (ConnectionError, TimeoutError)"
            )
        backoff: object = self.backoff
        if backoff is not None and not _takes_two(backoff):
            needed = "a function of the attempt and the error that returns seconds"
            if duration(backoff) is not None:
                needed += f", or backoff_seconds={shown(backoff)} for the first delay"
            raise _wrong("backoff", backoff, needed)

    def _set(self, name: str, value: object, remedy: str) -> None:
        if value is None:
            raise _wrong(name, getattr(self, name), remedy)
        object.__setattr__(self, name, value)

    def delay_seconds(self, attempt: int, error: BaseException | None = None, *, chance: float = 0.5) -> float:
        """Return the delay after a failed attempt, in seconds.

        Args:
            attempt: the attempt that failed, from 1.
            error: what it raised; only `backoff` looks at it.
            chance: a random number from 0 to 1; 0.5 gives the delay without jitter.

        Raises:
            RetryPolicyError: `backoff` returned something else than a delay.
            BaseException: what `backoff` raised.
        """
        if self.backoff is not None:
            delay = self.backoff(attempt, error)
            seconds = duration(delay)
            if seconds is None:
                raise RetryPolicyError(f"returned {shown(delay)}")
            return seconds
        first, maximum = float(self.backoff_seconds), float(self.max_backoff_seconds)  # type: ignore[arg-type]
        try:
            raw = first * self.factor ** (attempt - 1)
        except OverflowError:
            raw = maximum
        return min(raw, maximum) * (1.0 + self.jitter * (2.0 * chance - 1.0))

    def retries(self, error: BaseException) -> bool:
        """Whether this error is worth another attempt, the number of attempts aside."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.fatal_on)  # type: ignore[arg-type]


def _takes_two(function: object) -> bool:
    """Whether something can be called, not awaited, with two arguments; what hides its signature may be."""
    if not callable(function) or is_coroutine_function(function):
        return False
    try:
        inspect.signature(function).bind(1, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _classes(given: object) -> tuple[type[BaseException], ...] | None:
    """Return exception classes given alone or as any collection of them; None when they are something else."""
    if isinstance(given, type):
        listed: list[object] = [given]
    elif isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        listed = list(given)
    else:
        listed = list(get_args(given)) if isinstance(given, UnionType) else [None]
    if all(isinstance(one, type) and issubclass(one, BaseException) for one in listed):
        return tuple(listed)  # type: ignore[arg-type]
    return None


def _wrong(option: str, value: object, remedy: str) -> DefinitionError:
    return DefinitionError(f"RetryPolicy({option}={shown(value)}): give {remedy}.")


NO_RETRY = RetryPolicy(max_attempts=1)
