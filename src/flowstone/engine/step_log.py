"""What a process says of the steps that it runs: lines in its log, and events after their commits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from flowstone import telemetry
from flowstone.core.clean import error_line
from flowstone.core.outcome import Failed, Scattered, Skipped, Snoozed, Stopped, Succeeded, Suspended
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, CommitResult, NewRun, NewStep, PlacedStep

log = logging.getLogger("flowstone.steps")

_MAX_A_SECOND = 20
_MAX_ERROR = 500


class StepLog:
    """Logs starts and ends of steps: INFO, WARNING for what is repeated, ERROR for what failed for good.

    Of steps that are so short that their lines would cost more than they do, some are logged each second and the
    others counted; warnings and errors always are logged.

    Args:
        label: writes an encoded partition of an asset as people type it.
        now: a clock in seconds, for tests.
    """

    def __init__(self, label: Callable[[str, str], str], *, now: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._now = now
        self._lock = threading.Lock()
        self._second = 0.0
        self._lines = self._left_out = 0

    def began(self, attempt: Attempt) -> None:
        """Say that an attempt begins."""
        if log.isEnabledFor(logging.INFO) and self._has_room():
            of = f" of {attempt.max_attempts}" if attempt.max_attempts > 1 else ""
            log.info("%s begins: attempt %d%s, run %s", self._target(attempt), attempt.attempt, of, attempt.run_id)

    def ended(self, group: Sequence[AttemptResult], committed: Sequence[CommitResult]) -> None:
        """Say what was committed of a group of attempts."""
        for completion, one in zip(group, committed, strict=True):
            if one.accepted:
                self._say(completion, one.state)
            log_committed(completion, one)

    def _say(self, completion: AttemptResult, state: State) -> None:
        attempt, outcome = completion.attempt, completion.outcome
        if state is State.RETRYING and isinstance(outcome, Failed):
            again = f"{completion.retry_in_seconds or 0.0:.3g} s"
            message = "%s failed in attempt %d of %d and is repeated in %s: %s (run %s, step %d)"
            error = error_line(outcome.error)[:_MAX_ERROR]
            where = (attempt.run_id, attempt.step_id)
            log.warning(
                message, self._target(attempt), attempt.attempt, attempt.max_attempts, again, error, *where
            )
        elif state is State.FAILED:
            error = "the database refused its result"
            if isinstance(outcome, Failed):
                error = error_line(outcome.error)[:_MAX_ERROR]
            message = "%s failed for good in attempt %d of %d: %s (run %s, step %d)"
            where = (attempt.run_id, attempt.step_id)
            log.error(message, self._target(attempt), attempt.attempt, attempt.max_attempts, error, *where)
        elif log.isEnabledFor(logging.INFO) and self._has_room():
            took = (completion.finished_at - attempt.started_at).total_seconds()
            what = _what_came_of(outcome, state)
            log.info(
                "%s %s after %.3f s (run %s, step %d)",
                self._target(attempt),
                what,
                took,
                attempt.run_id,
                attempt.step_id,
            )

    def _target(self, attempt: Attempt) -> str:
        return (
            f"{attempt.asset} [{self._label(attempt.asset, attempt.partition_key)}]"
            if attempt.partition_key
            else attempt.asset
        )

    def _has_room(self) -> bool:
        """Whether one more line of this second is written; checked before it is put together."""
        now = self._now()
        left_out = 0
        with self._lock:
            if now - self._second >= 1.0:
                left_out, self._second, self._lines, self._left_out = self._left_out, now, 0, 0
            self._lines += 1
            shown = self._lines <= _MAX_A_SECOND
            self._left_out += not shown
        if left_out:
            log.info("... and %d more lines of this kind: steps are shorter than it takes to log them.", left_out)
        return shown


def log_committed(completion: AttemptResult, committed: CommitResult) -> None:
    """Emit `attempt.committed`, when there is a listener."""
    if not telemetry.listening() or not isinstance(completion.attempt, Attempt):
        return
    attempt, outcome = completion.attempt, completion.outcome
    measured = {"duration_seconds": (completion.finished_at - attempt.started_at).total_seconds()}
    if attempt.queued_seconds is not None:
        measured["queue_seconds"] = attempt.queued_seconds
    if committed.state is State.RETRYING and completion.retry_in_seconds is not None:
        measured["retry_in_seconds"] = completion.retry_in_seconds
    about: dict[str, Any] = {
        "asset": attempt.asset,
        "partition": attempt.partition_key,
        "run_id": attempt.run_id,
        "step_id": str(attempt.step_id),
        "attempt": attempt.attempt,
        "token": attempt.token,
        "max_attempts": attempt.max_attempts,
        "accepted": committed.accepted,
        "outcome": type(outcome).__name__.lower(),
        "state": committed.state.value,
        "final": committed.accepted and committed.state.is_terminal,
    }
    if isinstance(outcome, Failed):
        about |= {"error": error_line(outcome.error), "error_type": outcome.error_type}
    telemetry.emit("attempt.committed", measured, about)
    if committed.accepted:
        _emit_moved(attempt, outcome, committed.state)


def _emit_moved(attempt: Attempt, outcome: object, state: State) -> None:
    """Emit what an accepted end of an attempt means for its step, when that is not over with it."""
    about: dict[str, Any] = {
        "asset": attempt.asset,
        "partition": attempt.partition_key,
        "run_id": attempt.run_id,
        "step_id": str(attempt.step_id),
    }
    if state is State.CANCELLED:
        telemetry.emit("step.cancelled", {}, about)
    elif isinstance(outcome, Snoozed):
        telemetry.emit(
            "step.snoozed", {"retry_in_seconds": outcome.after_seconds}, about | {"reason": outcome.reason}
        )
    elif isinstance(outcome, Suspended):
        gate = {"gate": outcome.gate, "message": outcome.message, "timeout_seconds": outcome.timeout_seconds}
        telemetry.emit("approval.requested", {}, about | gate)


def emit_placed(run: NewRun, steps: Sequence[NewStep], placed: Sequence[PlacedStep] | None = None) -> None:
    """Emit `run.start` of a run that is recorded, and `step.placed` for each step of its own that is not over.

    Args:
        run: the run.
        steps: what was to be placed.
        placed: what stands for each; None when that is not known, as for the runs of automations.
    """
    telemetry.emit("run.start", {"steps": len(steps)}, {"run_id": run.id, "kind": run.kind})
    if not telemetry.listening("step.placed"):
        return
    known: Sequence[PlacedStep | None] = placed or [None] * len(steps)
    for new, one in zip(steps, known, strict=True):
        if one is not None and (one.deduplicated or one.state.is_terminal):
            continue
        about: dict[str, Any] = {"asset": new.asset, "partition": new.partition_key, "run_id": run.id}
        about |= {"queue": new.queue} | ({} if one is None else {"step_id": str(one.id), "state": one.state.value})
        telemetry.emit("step.placed", {}, about)


def _what_came_of(outcome: object, state: State) -> str:
    match outcome:
        case Succeeded() if state is State.COMPLETED:
            return "completed"
        case Skipped(reason=reason):
            return f"was skipped ({reason})" if reason else "was skipped"
        case Snoozed(reason=reason, after_seconds=seconds) if state is not State.CANCELLED:
            return f"polls again in {seconds:.3g} s ({reason})"
        case Suspended() | Scattered() if state is not State.CANCELLED:
            return outcome.reason
        case Stopped(reason=reason):
            return f"was {state.value} ({reason})"
        case _:
            return f"is {state.value}"
