"""What people do to many runs at once, in the in-memory store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice

from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.protocols import BulkActions
from flowstone.stores.memory.approvals import MemoryApprovals
from flowstone.stores.memory.tables import RunRow, StepRow, Tables


class MemoryBulkActions(BulkActions):
    """Implements `flowstone.protocols.BulkActions` over dictionaries.

    Args:
        tables: the data of the store, whose lock makes a method a transaction.
        approvals: cancels steps, with what they wait for.
    """

    def __init__(self, tables: Tables, approvals: MemoryApprovals) -> None:
        self._tables = tables
        self._approvals = approvals

    def matching(self, requested: RunFilter, now: datetime, *, limit: int) -> list[str]:
        with self._tables.changed:
            found = (run.new.id for run in self._tables.runs.values() if requested.matches(run.record(), now))
            return list(islice(found, limit))

    def cancel_runs(self, run_ids: Sequence[str], details: Mapping[str, object]) -> list[int]:
        running: list[int] = []
        with self._tables.changed:
            found = self._runs(run_ids)
            if found:
                self._tables.note("runs.cancelled", "runs", details)
            for run in found:
                running += self._cancel(list(run.steps.values()))
                run.is_cancelled = run.is_cancelled or run.record().state in (State.RUNNING, State.CANCELLING)
            self._tables.announce()
        self._tables.emit_ended()
        return running

    def cancel_steps(self, run_id: str, step_ids: Sequence[int], details: Mapping[str, object]) -> list[int]:
        with self._tables.changed:
            steps = [self._tables.steps[one] for one in step_ids if one in self._tables.steps]
            number = sum(not one.state.is_terminal for one in steps)
            running = self._cancel(steps)
            self._tables.note("steps.cancelled", f"run:{run_id}", {"steps": number, **details})
            self._tables.announce()
        self._tables.emit_ended()
        return running

    def set_priority(self, run_ids: Sequence[str], priority: int, details: Mapping[str, object]) -> int:
        with self._tables.changed:
            found = self._runs(run_ids)
            if found:
                one = len(run_ids) == 1
                action, subject = ("run.prioritized", f"run:{run_ids[0]}") if one else ("runs.prioritized", "runs")
                self._tables.note(action, subject, {"priority": priority, **details})
            still_open = [run for run in found if not run.record().state.is_terminal]
            for run in still_open:
                run.new.priority = priority
                for row in run.steps.values():
                    if not row.state.is_terminal:
                        row.priority = priority
            return len(still_open)

    def set_window(self, run_id: str, window: int) -> bool:
        """Return False: what runs in this process has the width of its call."""
        return False

    def _runs(self, run_ids: Sequence[str]) -> list[RunRow]:
        return [self._tables.runs[one] for one in run_ids if one in self._tables.runs]

    def _cancel(self, steps: Sequence[StepRow]) -> list[int]:
        """Cancel steps; return those that are running."""
        now = datetime.now(UTC)
        for row in reversed(steps):  # readers first, so that they end as cancelled themselves
            self._approvals.cancel(row, now)
        return [row.id for row in steps if row.state is State.CANCELLING]
