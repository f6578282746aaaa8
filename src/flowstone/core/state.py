"""The states of steps and runs: one vocabulary for database, command line and pages."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a step or a run stands.

    Example:
        >>> State("completed").is_terminal
        True
    """

    WAITING = "waiting"
    """Inputs are not committed yet."""
    SCHEDULED = "scheduled"
    """Placed for a later time."""
    PENDING = "pending"
    """Ready to start as soon as a worker has room."""
    RUNNING = "running"
    """Being executed, or for a run: not over yet."""
    RETRYING = "retrying"
    """An attempt failed; the next one has its time."""
    AWAITING_APPROVAL = "awaiting_approval"
    """Stopped for a person's decision."""
    CANCELLING = "cancelling"
    """A cancel was recorded while the work was running; it is not over yet."""
    COMPLETED = "completed"
    """Committed."""
    REUSED = "reused"
    """Nothing was computed: an earlier committed materialization serves."""
    FAILED = "failed"
    """Attempts are exhausted, or the failure was fatal."""
    UPSTREAM_FAILED = "upstream_failed"
    """An input failed for good, so this never started."""
    SKIPPED = "skipped"
    """The asset (or one of its inputs) decided that there is nothing to do."""
    CANCELLED = "cancelled"
    """Cancelled before it was over."""
    NOT_FOUND = "not_found"
    """Nobody knows such a job; an answer to a question, never stored."""

    is_terminal: bool
    """Whether nothing more will happen."""
    is_success: bool
    """Whether a committed value serves."""


TERMINAL = frozenset(
    {State.COMPLETED, State.REUSED, State.FAILED, State.UPSTREAM_FAILED, State.SKIPPED, State.CANCELLED}
)
SUCCESS = frozenset({State.COMPLETED, State.REUSED})
ACTIVE = frozenset(State) - TERMINAL - {State.NOT_FOUND}

for _state in State:
    _state.is_terminal, _state.is_success = _state in TERMINAL, _state in SUCCESS

_STARTABLE = {State.RUNNING, State.CANCELLED, State.UPSTREAM_FAILED, State.SKIPPED, State.REUSED, State.FAILED}
_NEXT: dict[State, set[State]] = {
    State.WAITING: {State.PENDING, State.SCHEDULED, *_STARTABLE},
    State.SCHEDULED: {State.PENDING, State.WAITING, *_STARTABLE},
    State.PENDING: {State.WAITING, State.SCHEDULED, *_STARTABLE},
    State.RETRYING: {State.PENDING, State.WAITING, *_STARTABLE},
    State.RUNNING: {
        State.COMPLETED,
        State.REUSED,
        State.FAILED,
        State.SKIPPED,
        State.RETRYING,
        State.WAITING,
        State.SCHEDULED,
        State.PENDING,
        State.CANCELLING,
        State.CANCELLED,
        State.AWAITING_APPROVAL,
    },
    State.AWAITING_APPROVAL: {State.PENDING, State.FAILED, State.CANCELLED, State.SKIPPED},
    State.CANCELLING: {State.CANCELLED, State.COMPLETED, State.FAILED, State.SKIPPED},
}


def can_move(before: State, after: State) -> bool:
    """Whether a step may go from one state to another.

    A cancel that comes too late loses: work that was finished when the cancel arrived is committed
    (`cancelling` to `completed`), never thrown away silently.

    Example:
        >>> can_move(State.PENDING, State.RUNNING), can_move(State.COMPLETED, State.RUNNING)
        (True, False)
    """
    return after in _NEXT.get(before, ())
