"""What may come of running an asset: what user code may say, and what the engine makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from flowstone.core.approval import (
    DEFAULT_GATE,
    DEFAULT_TIMEOUT_SECONDS,
    MAX_TIMEOUT_SECONDS,
    ON_TIMEOUT,
    OnTimeout,
    json_to_show,
    portable_json,
)
from flowstone.core.clean import clean_metadata, plain_text
from flowstone.core.declaring import duration, shown
from flowstone.core.frozen import maker
from flowstone.core.output import JsonValue, StoredOutput


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
        seconds = duration(after)
        if seconds is None:
            raise ValueError(
                f"RetryLater(after={shown(after)}): give a timedelta or 0 to 31,536,000 seconds (a year)"
            )
        self.after_seconds = seconds
        self.reason = plain_text(reason)
        super().__init__(self.reason or f"retry in {seconds:g} s")


class Skip(Outcome):
    """Say that there is nothing to do; what depends on this is skipped as well.

    Args:
        reason: shown with the step.

    Example:
        >>> str(Skip("no new rows"))
        'no new rows'
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = plain_text(reason)
        super().__init__(self.reason or "nothing to do")


class Fatal(Outcome):
    """Fail for good: no further attempt is made, whatever the retry policy says.

    Args:
        reason: becomes the step's error; an exception counts as its text.
        data: small facts for programs, recorded with the error: `StepFailedError.data`, `RunResult.failures`.

    Raises:
        SerializationError: `data` has no plain JSON form.

    Example:
        >>> ended = Fatal("the contract ended", data={"customer": 7})
        >>> str(ended), ended.data
        ('the contract ended', {'customer': 7})
    """

    def __init__(self, reason: str, *, data: Mapping[str, object] | None = None) -> None:
        self.reason = plain_text(reason)
        self.data = None if data is None else clean_metadata(data, "data")
        super().__init__(self.reason)


class AwaitApproval(Outcome):
    """Stop here until a person decides; when they approve, the function is called again.

    Meanwhile the step is `awaiting_approval`: it holds no thread of a worker, no slot of a limit, no place in a
    queue, and its attempt is released. In the call after the decision `context.approval` is there, with what
    was left in `resume`, so that the function goes on without doing again what it had done before.

    Args:
        message: what the person is asked.
        data: what the person is shown: JSON values, and what has a plain form: dates, numbers of NumPy and so on.
        timeout: how long to wait, as a timedelta or in seconds; an hour by default, at most a year.
        on_timeout: what silence means: `"reject"` fails the step, `"approve"` lets it go on, `"skip"` skips it.
        resume: plain JSON that the function leaves for its continuation.
        gate: name of this question, when an asset asks several, one after the other.

    Raises:
        ValueError: an argument cannot work.
        SerializationError: `data` has no plain form, or `resume`, which comes back as it is, is not plain JSON.

    Example:
        >>> request = AwaitApproval("Pay 3 invoices?", data={"sum": 100}, timeout=7200)
        >>> str(request), request.timeout_seconds, request.on_timeout
        ('Pay 3 invoices?', 7200.0, 'reject')
    """

    def __init__(
        self,
        message: str,
        *,
        data: JsonValue = None,
        timeout: timedelta | float = DEFAULT_TIMEOUT_SECONDS,
        on_timeout: OnTimeout = "reject",
        resume: JsonValue = None,
        gate: str = DEFAULT_GATE,
    ) -> None:
        seconds = duration(timeout, maximum=MAX_TIMEOUT_SECONDS)
        if not seconds:
            raise ValueError(
                f"AwaitApproval(timeout={shown(timeout)}): give above 0, at most a year (31,536,000 seconds)"
            )
        if on_timeout not in list(ON_TIMEOUT):
            raise ValueError(f"AwaitApproval(on_timeout={shown(on_timeout)}): give one of {', '.join(ON_TIMEOUT)}")
        texts: tuple[tuple[str, object], ...] = (("message", message), ("gate", gate))
        for name, text in texts:
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"AwaitApproval({name}={shown(text)}): give some text")
        if len(gate) > 200:
            raise ValueError("AwaitApproval(gate=...): a name has at most 200 characters")
        self.message = message
        self.timeout_seconds = seconds
        self.on_timeout = on_timeout
        self.gate = gate
        # as text, so that what the function does to its objects later on changes nothing
        self.data_json = json_to_show(data, "data")
        self.resume_json = portable_json(resume, "resume")
        super().__init__(message)


class _StoredRemotely:
    """Stands for a value that is not in this process."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<stored where it was computed>"


STORED_REMOTELY = _StoredRemotely()
"""In place of the value of a step that was computed in another process, or on another machine, and is stored."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The function returned and its value is stored, not yet published.

    Args:
        stored: where it lies.
        value: the value, or `STORED_REMOTELY`.
    """

    stored: StoredOutput
    value: object


succeeded = maker(Succeeded)
"""Makes the outcome of most steps, of the same arguments."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed.

    Args:
        error: cleaned, capped text with the traceback.
        error_type: qualified class name.
        retryable: whether the retry policy may try again.
        exception: the exception itself, for hooks and for executors in the same process; None once it was taken.
        data: what `Fatal(..., data=...)` said.
    """

    error: str
    error_type: str
    retryable: bool
    exception: BaseException | None = None
    data: Mapping[str, JsonValue] | None = None

    def take_exception(self) -> BaseException | None:
        """Return the exception and forget it.

        Its traceback holds every frame above the function, and frames of hooks hold this outcome: as long as both
        point at each other, the inputs of the step stay in memory until the cyclic collector runs.
        """
        exception = self.exception
        object.__setattr__(self, "exception", None)
        return exception


@dataclass(frozen=True, slots=True)
class Snoozed:
    """Not now: run again after a delay, the attempt is released.

    Args:
        after_seconds: the delay.
        reason: shown with the step.
        for_inputs: whether it is inputs that are missing, so that the step is `waiting` and not `scheduled`.
    """

    after_seconds: float
    reason: str
    for_inputs: bool = False


@dataclass(frozen=True, slots=True)
class Scattered:
    """Items were discovered: the step rests until they are over, the attempt is released.

    Args:
        total: number of items.
        allowed: how many of them may fail.
        is_complete: False when discovering ended early because too many had failed already.
    """

    total: int
    allowed: int
    is_complete: bool = True

    @property
    def reason(self) -> str:
        """What is shown with the step."""
        return f"waits for its {self.total:,} items"


@dataclass(frozen=True, slots=True)
class Suspended:
    """A person must decide first: nothing runs until then, the attempt is released.

    Args:
        message: what the person is asked.
        gate: which question of the asset this is.
        timeout_seconds: how long they have.
        on_timeout: what silence means.
        data: JSON text to show.
        resume: JSON text for the continuation.
    """

    message: str
    gate: str = DEFAULT_GATE
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    on_timeout: OnTimeout = "reject"
    data: str = "null"
    resume: str = "null"

    @property
    def reason(self) -> str:
        """What is shown with the step."""
        return f"waits for approval: {self.message[:200]}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """There was nothing to do."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The attempt ended because of a cancel."""

    reason: str


WORKER_LOST = "WorkerLost"
"""Type of the error of an attempt whose worker died or lost its lease."""

PROCESS_LOST = "ProcessLost"
"""Type of the error of a step whose process, which ran it by itself, died or lost its lease.

No worker starts it again; whoever asks for it does."""

type AttemptOutcome = Succeeded | Failed | Snoozed | Scattered | Suspended | Skipped | Stopped
