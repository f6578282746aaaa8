"""What follows from the end of an attempt in the in-memory store: children, runs, targets."""

from __future__ import annotations

from datetime import datetime

from flowstone import telemetry
from flowstone.core.route import ALL_SKIPPED, decision_of
from flowstone.core.state import State
from flowstone.core.step import AttemptRecord
from flowstone.stores.memory.tables import StepRow, Tables

ENDS_BELOW = {
    State.FAILED: State.UPSTREAM_FAILED,
    State.UPSTREAM_FAILED: State.UPSTREAM_FAILED,
    State.CANCELLED: State.UPSTREAM_FAILED,
    State.SKIPPED: State.SKIPPED,
}
"""The end of a step whose input ended without a result."""


class Propagation:
    """Moves steps and everything that depends on them; called with the store's lock held."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def finish(self, row: StepRow, state: State, now: datetime) -> tuple[int, ...]:
        """Move a step to a terminal state; return the steps that this released."""
        if row.state in (State.RUNNING, State.CANCELLING) and (row.attempts or state is not State.COMPLETED):
            self.end_attempt(row, state, now)
        if state is State.COMPLETED:
            row.error = row.error_type = row.error_data = None
        row.state = state
        row.finished_at = now
        tables = self._tables
        tables.active.pop((row.asset, row.partition), None)
        tables.runs[row.run_id].open -= 1
        if row.id in tables.joiners or telemetry.listeners:
            tables.note_end(row)
        if tables.after_end is not None:
            tables.after_end(row, now)
        if row.children is None:
            return ()
        children, row.children = row.children, None
        if state is State.COMPLETED:
            left_out = self._leave_out(row, children, now) if row.stored and row.stored.metadata else ()
            return left_out + self._release(children, now)
        return self._fail_downstream(row, children, now)

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

    def end_below(self, child: StepRow, parent: StepRow, now: datetime) -> None:
        """End a step because its input ended without a result."""
        child.reason = f"input {parent.asset} {parent.partition}".rstrip() + f" ended as {parent.state}"
        self.finish(child, ENDS_BELOW[parent.state], now)

    def _leave_out(self, row: StepRow, children: list[int], now: datetime) -> tuple[int, ...]:
        """Skip the children that a step has not chosen; return what that released further down."""
        decision = decision_of(row.stored)
        released: tuple[int, ...] = ()
        for child_id in children if decision is not None and decision.not_chosen else ():
            child = self._tables.steps[child_id]
            if decision is not None and child.state is State.WAITING and child.asset in decision.not_chosen:
                child.reason = decision.explain(row.asset)
                released += self.finish(child, State.SKIPPED, now)
        return released

    def _release(self, children: list[int], now: datetime) -> tuple[int, ...]:
        released = []
        for child_id in children:
            child = self._tables.steps[child_id]
            child.waiting_on -= 1
            if not child.waiting_on and child.state is State.WAITING:
                _make_ready(child, now)
                released.append(child_id)
        return tuple(released)

    def _fail_downstream(self, row: StepRow, children: list[int], now: datetime) -> tuple[int, ...]:
        """Pass an end on to everything downstream at once, without recursion: a chain may be long.

        Returns:
            What can start because it does without the inputs that were skipped.
        """
        todo = [(row, child_id) for child_id in children]
        released = []
        while todo:
            parent, child_id = todo.pop()
            child = self._tables.steps[child_id]
            if child.state is not State.WAITING:
                continue
            if parent.state is State.SKIPPED and _does_without(child, parent):
                if not child.waiting_on:
                    _make_ready(child, now)
                    released.append(child_id)
                continue
            below, child.children = child.children or [], None
            self.end_below(child, parent, now)
            if child.skips_left == 0:
                child.reason = ALL_SKIPPED
            todo.extend((child, other) for other in below)
        return tuple(released)


def _does_without(child: StepRow, skipped: StepRow) -> bool:
    """Count a skipped input down; return whether the step goes on without it."""
    if child.optional is None or skipped.id not in child.optional:
        return False
    child.waiting_on -= 1
    if child.skips_left is not None:
        child.skips_left -= 1
    return child.skips_left != 0


def _make_ready(child: StepRow, now: datetime) -> None:
    later = child.scheduled_at is not None and child.scheduled_at > now
    child.state = State.SCHEDULED if later else State.PENDING
