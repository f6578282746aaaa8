"""Exceptions of user code turned into outcomes that can be recorded."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from flowstone.core.clean import ERROR_LIMIT, clean_text, plain_text
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
from flowstone.errors import (
    ComputeLostError,
    GateRepeatedError,
    ItemError,
    RemoteCodeError,
    RouteError,
    ScatterFailedError,
    SerializationError,
    StepCancelledError,
    WorkerCrashedError,
)

_OWN_CODE = str(Path(__file__).parents[1])
_MAX_FRAMES = 60
_FOR_GOOD = (Fatal, SerializationError, GateRepeatedError, RouteError, ItemError, ScatterFailedError)
_NOT_OF_THE_CODE = (ComputeLostError, RemoteCodeError, WorkerCrashedError)
"""What says nothing about the function: as with a lost worker, the policy of its exceptions has no say."""


def outcome_of(error: BaseException, policy: RetryPolicy | None) -> AttemptOutcome:
    """Return what an exception means for the attempt that raised it.

    Args:
        error: whatever was raised, `SystemExit` and `KeyboardInterrupt` included.
        policy: retry policy in force; None for the default classes.

    Example:
        >>> outcome_of(Skip("nothing new"), None)
        Skipped(reason='nothing new')
    """
    try:
        return _meaning(error, policy)
    except BaseException as broken:  # noqa: BLE001 - an outcome that user code has changed since it was made
        return failure(broken, None)


def _meaning(error: BaseException, policy: RetryPolicy | None) -> AttemptOutcome:
    match error:
        case RetryLater():
            return Snoozed(error.after_seconds, clean_text(plain_text(error.reason), limit=1000))
        case AwaitApproval():
            return _suspended(error)
        case Skip():
            return Skipped(clean_text(plain_text(error.reason), limit=1000))
        case StepCancelledError():
            return Stopped("stopped by its cancellation token")
        case _:
            return failure(error, policy)


def _suspended(request: AwaitApproval) -> Suspended:
    return Suspended(
        message=clean_text(plain_text(request.message), limit=10_000),
        gate=clean_text(plain_text(request.gate), limit=1000),
        timeout_seconds=request.timeout_seconds,
        on_timeout=request.on_timeout,
        data=request.data_json,
        resume=request.resume_json,
    )


def failure(error: BaseException, policy: RetryPolicy | None) -> Failed:
    """Return the recorded form of a failure, with its traceback from the first frame of user code on."""
    text = _describe(error)
    try:
        retryable = _is_retryable(error, policy)
    except BaseException as broken:  # noqa: BLE001 - classes of user code decide
        retryable = False
        problem = f"{type(broken).__name__}: {plain_text(broken)}"
        text += f"\nThe retry policy could not decide whether to try again: {problem}"
    kind = type(error)
    data = getattr(error, "data", None) if isinstance(error, Fatal) else None
    return Failed(
        error=clean_text(text),
        error_type=clean_text(f"{kind.__module__}.{kind.__qualname__}", limit=300),
        retryable=retryable,
        exception=error,
        data=data,
    )


def _is_retryable(error: BaseException, policy: RetryPolicy | None) -> bool:
    if isinstance(error, _FOR_GOOD):
        return False
    if isinstance(error, _NOT_OF_THE_CODE):
        return True
    if policy is not None:
        return policy.retries(error)
    # by default an exit or an interrupt is not worth another attempt, everything else is
    return isinstance(error, Exception)


def without_further_attempt(outcome: Failed, error: BaseException) -> Failed:
    """Return a failure that is final because its retry policy could not say when to try again.

    Args:
        outcome: the failure.
        error: what the policy raised.
    """
    why = "".join(traceback.format_exception_only(type(error), error)).strip()
    problem = f"{outcome.error.rstrip()}\n\nThere is no further attempt, because the retry policy failed: {why}"
    # the exception moves: the frames of its traceback may hold the first outcome
    return replace(outcome, error=clean_text(problem), retryable=False, exception=outcome.take_exception())


def user_traceback(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that starts in user code; all of it when there is none."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        inner = inner.tb_next
    return inner or trace


def _describe(error: BaseException) -> str:
    if isinstance(error, Outcome | ComputeLostError | RemoteCodeError):  # no line of code is to blame
        return f"{type(error).__name__}: {plain_text(error)}"
    try:
        _cap_message(error)
        lines = traceback.TracebackException(
            type(error), error, user_traceback(error.__traceback__), limit=-_MAX_FRAMES, compact=True
        ).format()
        return "".join(lines)
    except BaseException as broken:  # noqa: BLE001 - an exception whose own text raises is still recorded
        return f"{type(error).__qualname__} (its description raised {type(broken).__qualname__})"


def _cap_message(error: BaseException) -> None:
    """Shorten a giant message before formatting copies it several times."""
    if len(error.args) == 1 and isinstance(error.args[0], str) and len(error.args[0]) > 4 * ERROR_LIMIT:
        error.args = (clean_text(error.args[0]),)
