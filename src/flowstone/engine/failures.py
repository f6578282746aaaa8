"""Exceptions of user code turned into outcomes that can be recorded."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from flowstone.core.outcome import (
    AttemptOutcome,
    AwaitApproval,
    Failed,
    Fatal,
    Outcome,
    RetryLater,
    Skip,
    Skipped,
    Snoozed,
    Stopped,
    Suspended,
)
from flowstone.core.retry import RetryPolicy
from flowstone.core.text import ERROR_LIMIT, clean_text
from flowstone.errors import (
    GateRepeatedError,
    ItemError,
    RouteError,
    ScatterFailedError,
    SerializationError,
    StepCancelledError,
)

_OWN_CODE = str(Path(__file__).parents[1])
_MAX_FRAMES = 60
_FOR_GOOD = (Fatal, SerializationError, GateRepeatedError, RouteError, ItemError, ScatterFailedError)


def outcome_of(error: BaseException, policy: RetryPolicy | None) -> AttemptOutcome:
    """Return what an exception means for the attempt that raised it.

    Args:
        error: whatever was raised, `SystemExit` and `KeyboardInterrupt` included.
        policy: retry policy in force; None for the default classes.

    Example:
        >>> outcome_of(Skip("nothing new"), None)
        Skipped(reason='nothing new')
    """
    match error:
        case RetryLater():
            return Snoozed(error.after_seconds, clean_text(error.reason, limit=1000))
        case AwaitApproval():
            return _suspended(error)
        case Skip():
            return Skipped(clean_text(error.reason, limit=1000))
        case StepCancelledError():
            return Stopped("stopped by its cancellation token")
        case _:
            return failure(error, policy)


def _suspended(asked: AwaitApproval) -> Suspended:
    return Suspended(
        message=clean_text(asked.message, limit=10_000),
        gate=clean_text(asked.gate, limit=1000),
        timeout_seconds=asked.timeout_seconds,
        on_timeout=asked.on_timeout,
        data=asked.data_json,
        resume=asked.resume_json,
    )


def failure(error: BaseException, policy: RetryPolicy | None) -> Failed:
    """Return the recorded form of a failure, with its traceback from the first frame of user code on."""
    retryable = not isinstance(error, _FOR_GOOD)
    if retryable and policy is not None:
        retryable = policy.retries(error)
    elif retryable:
        # by default an exit or an interrupt is not worth another attempt, everything else is
        retryable = isinstance(error, Exception)
    kind = type(error)
    return Failed(
        error=clean_text(_describe(error)),
        error_type=clean_text(f"{kind.__module__}.{kind.__qualname__}", limit=300),
        retryable=retryable,
        exception=error,
    )


def user_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that starts in user code; all of it when there is none."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        inner = inner.tb_next
    return inner or trace


def _describe(error: BaseException) -> str:
    if isinstance(error, Outcome):
        return f"{type(error).__name__}: {error}"
    try:
        _cap_message(error)
        lines = traceback.TracebackException(
            type(error), error, user_traceback(error.__traceback__), limit=-_MAX_FRAMES, compact=True
        ).format()
        return "".join(lines)
    except Exception as broken:  # noqa: BLE001 - an exception whose own text raises is still recorded
        return f"{type(error).__qualname__} (its description raised {type(broken).__qualname__})"


def _cap_message(error: BaseException) -> None:
    """Shorten a giant message before formatting copies it several times."""
    if len(error.args) == 1 and isinstance(error.args[0], str) and len(error.args[0]) > 4 * ERROR_LIMIT:
        error.args = (clean_text(error.args[0]),)
