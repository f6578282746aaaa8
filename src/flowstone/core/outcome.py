"""What may come of running an asset: what user code may say, and what the engine makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from flowstone.core.output import StoredOutput


class Outcome(Exception):  # noqa: N818 - an outcome may be raised, but it is an answer, not an error
    """Base of what an asset may return or raise instead of a value."""


class RetryLater(Outcome):
    """Ask to be run again later without using up an attempt ("snooze").

    Args:
        after: how long to wait, as a timedelta or in seconds.
        reason: shown with the step.

    Example:
        >>> RetryLater(90, "the export is not there yet").after_seconds
        90.0
    """

    def __init__(self, after: timedelta | float = 30.0, reason: str = "") -> None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else float(after)
        if not 0 <= seconds <= 31_536_000:
            raise ValueError(f"RetryLater(after={after!r}): give 0 to 31,536,000 seconds (a year)")
        self.after_seconds = seconds
        self.reason = reason
        super().__init__(reason or f"retry in {seconds:g} s")


class Skip(Outcome):
    """Say that there is nothing to do; what depends on this is skipped as well.

    Args:
        reason: shown with the step.

    Example:
        >>> str(Skip("no new rows"))
        'no new rows'
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason or "nothing to do")


class Fatal(Outcome):
    """Fail for good: no further attempt is made, whatever the retry policy says.

    Args:
        reason: becomes the step's error.

    Example:
        >>> str(Fatal("the contract ended"))
        'the contract ended'
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function returned and its value is stored, not yet published."""

    stored: StoredOutput
    value: object


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed.

    Args:
        error: cleaned, capped text with the traceback.
        error_type: qualified class name.
        retryable: whether the retry policy may try again.
        exception: the exception itself, for executors in the same process.
    """

    error: str
    error_type: str
    retryable: bool
    exception: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """Not now: run again after a delay, the attempt is given back.

    Args:
        after_seconds: the delay.
        reason: shown with the step.
        for_inputs: whether it is inputs that are missing, so that the step is `waiting` and not `scheduled`.
    """

    after_seconds: float
    reason: str
    for_inputs: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """There was nothing to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The attempt ended because of a cancel."""

    reason: str


type AttemptOutcome = Succeeded | Failed | Snoozed | Skipped | Stopped
