"""What follows from the end of an attempt in the in-memory store: children, runs, targets."""

from __future__ import annotations

from datetime import datetime

from flowstone.core.state import State
from flowstone.core.step import AttemptRecord
from flowstone.stores.memory.tables import StepRow, Tables

FOLLOWS = {
    State.FAILED: State.UPSTREAM_FAILED,
    State.UPSTREAM_FAILED: State.UPSTREAM_FAILED,
    State.CANCELLED: State.UPSTREAM_FAILED,
    State.SKIPPED: State.SKIPPED,
}
"""What becomes of a step whose input ended without a result."""


class Following:
    """Moves steps and everything that depends on them; called with the store's lock held."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def finish(self, row: StepRow, state: State, now: datetime) -> tuple[int, ...]:
        """Move a step to a terminal state; return the steps that this released."""
        if row.state in (State.RUNNING, State.CANCELLING) and (row.attempts or state is not State.COMPLETED):
            self.end_attempt(row, state, now)
        if state is State.COMPLETED:
            row.error = row.error_type = None
        row.state = state
        row.finished_at = now
        tables = self._tables
        tables.active.pop((row.asset, row.partition), None)
        tables.runs[row.run_id].open -= 1
        if row.children is None:
            return ()
        children, row.children = row.children, None
        if state is State.COMPLETED:
            return self._release(children, now)
        self._fail_downstream(row, children, now)
        return ()

    def end_attempt(self, row: StepRow, state: State, now: datetime, *, retry_at: datetime | None = None) -> None:
        """Record an attempt that is over."""
        if row.attempts is None:
            row.attempts = []
        row.attempts.append(
            AttemptRecord(
                attempt=row.attempt,
                state=state,
                started_at=row.started_at or now,
                finished_at=now,
                error=row.error if state is not State.COMPLETED else None,
                error_type=row.error_type if state is not State.COMPLETED else None,
                retry_at=retry_at,
            )
        )

    def follow(self, child: StepRow, parent: StepRow, now: datetime) -> None:
        """End a step because its input ended without a result."""
        child.reason = f"input {parent.asset} {parent.partition}".rstrip() + f" ended as {parent.state}"
        self.finish(child, FOLLOWS[parent.state], now)

    def _release(self, children: list[int], now: datetime) -> tuple[int, ...]:
        released = []
        for child_id in children:
            child = self._tables.steps[child_id]
            child.waiting_on -= 1
            if not child.waiting_on and child.state is State.WAITING:
                later = child.scheduled_at is not None and child.scheduled_at > now
                child.state = State.SCHEDULED if later else State.PENDING
                released.append(child_id)
        return tuple(released)

    def _fail_downstream(self, row: StepRow, children: list[int], now: datetime) -> None:
        """Tell everything downstream at once, without recursion: a chain may be long."""
        todo = [(row, child_id) for child_id in children]
        while todo:
            parent, child_id = todo.pop()
            child = self._tables.steps[child_id]
            if child.state is State.WAITING:
                below, child.children = child.children or [], None
                self.follow(child, parent, now)
                todo.extend((child, other) for other in below)
