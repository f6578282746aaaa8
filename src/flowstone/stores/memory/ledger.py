"""The writing side of the in-memory store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from flowstone.core.actor import AUTOMATION
from flowstone.core.forks import renew_after_fork
from flowstone.core.outcome import WORKER_LOST, Failed, Scattered, Skipped, Snoozed, Stopped, Succeeded, Suspended
from flowstone.core.recordable import NOWHERE, can_be_committed, failed, make_recordable
from flowstone.core.state import State
from flowstone.core.step import (
    OPEN_OR_THERE,
    Attempt,
    AttemptResult,
    CommitResult,
    NewRun,
    NewStep,
    PlacedStep,
    Target,
    make_attempt,
    make_commit_result,
    make_placed,
    over_before_it_begins,
)
from flowstone.core.version import ChangeKind
from flowstone.errors import RunConflictError, RunNotFoundError
from flowstone.protocols import Ledger
from flowstone.stores.audit import new_line, of_run, of_targets
from flowstone.stores.memory.approvals import MemoryApprovals
from flowstone.stores.memory.catalog import insert_checks
from flowstone.stores.memory.scatters import MemoryScatters
from flowstone.stores.memory.tables import Propagation, RunRow, StepRow, Tables

_CLAIMABLE = (State.PENDING, State.SCHEDULED, State.RETRYING)
# read once: a member is looked up by the class of its enumeration each time
_WAITING, _PENDING = State.WAITING, State.PENDING
_RUNNING, _CANCELLING, _COMPLETED = State.RUNNING, State.CANCELLING, State.COMPLETED


class MemoryLedger(Ledger):
    """Implements `flowstone.protocols.Ledger` over dictionaries; the lock makes a method a transaction."""

    def __init__(self, tables: Tables, approvals: MemoryApprovals, scatters: MemoryScatters) -> None:
        self._tables = tables
        self._approvals = approvals
        self._scatters = scatters
        self._propagation = Propagation(tables)
        self.changed = tables.changed
        # the lock is held meanwhile, so that a forked child sees nothing half done
        renew_after_fork(self, MemoryLedger._end_what_the_parent_runs, hold=True)

    def _end_what_the_parent_runs(self) -> None:
        """In a forked child: nobody here runs what was under way, and whoever asks again must not wait for it."""
        now = datetime.now(UTC)
        for row in [self._tables.steps[step_id] for step_id in self._tables.active.values()]:
            if not row.state.is_terminal:
                row.error_type = WORKER_LOST
                row.error = "This is a forked copy of the process that ran it."
                row.reason = "it runs in the process that this one was forked from"
                self._propagation.finish(row, State.CANCELLED, now)

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        tables = self._tables
        with tables.lock:
            if tables.max_steps is not None and len(tables.steps) > tables.max_steps:
                tables.make_room()
            row = tables.runs.get(run.id)
            for new in steps:
                if new.same_config:
                    self._refuse_conflict(row, new)
            is_new = row is None
            if row is None:
                row = tables.runs[run.id] = RunRow(run)
            placed: list[PlacedStep] = []
            for new in steps:
                placed.append(self._place(row, run, new, placed))
            if tables.waiters:
                tables.announce()
            if is_new and run.requested_by is not None and run.requested_via != AUTOMATION:
                tables.note("run.placed", f"run:{run.id}", of_run(run, len(steps)), by=run.requested_by)
            return placed

    def claim(self, step_ids: Sequence[int], now: datetime) -> list[Attempt]:
        attempts: list[Attempt] = []
        tables = self._tables
        by_step = self._approvals.by_step
        with tables.lock:
            for step_id in step_ids:
                row = tables.steps.get(step_id)
                if row is None or row.state not in _CLAIMABLE:
                    continue
                if row.scheduled_at is not None and row.scheduled_at > now:
                    continue
                row.state = _RUNNING
                row.attempt += 1
                row.token = next(tables.tokens)
                row.started_at = now
                new = row.new
                attempts.append(
                    make_attempt(
                        step_id,
                        row.run_id,
                        row.asset,
                        row.partition_key,
                        row.attempt,
                        new.max_attempts,
                        row.token,
                        now,
                        new.forced,
                        self._approvals.open_gates(row) if step_id in by_step else (),
                        tables.runs[row.run_id].info,
                    )
                )
        return attempts

    def commit(self, completions: Sequence[AttemptResult]) -> list[CommitResult]:
        # before the lock: making them fit asks objects of user code for their text
        ready = [
            one if type(one) is AttemptResult and one.is_recordable else _recordable(one) for one in completions
        ]
        committed: list[CommitResult] = []
        tables = self._tables
        with tables.lock:
            for one in ready:
                try:
                    committed.append(NOWHERE if one is None else self._commit(one))
                except Exception as error:  # noqa: BLE001 - the others of the group are committed all the same
                    assert one is not None
                    committed.append(self._commit(failed(one.attempt, error)))
            if tables.waiters:
                tables.announce()
        if tables.touched:
            tables.emit_ended()
        if tables.unpublished:
            self._publish([(one.attempt.asset, one.attempt.partition_key) for one in ready if one is not None])
        return committed

    def _publish(self, targets: Sequence[Target]) -> None:
        """Publish what was noted, without the lock."""
        if self._tables.publisher is not None:
            self._tables.publisher.after(targets)

    def release(self, attempts: Sequence[Attempt], *, delay_seconds: float = 0.0, reason: str = "") -> list[int]:
        ours = []
        now = datetime.now(UTC)
        with self._tables.changed:
            for attempt in attempts:
                row = self._ours(attempt)
                if row is None:
                    continue
                ours.append(row.id)
                if row.state is State.CANCELLING:
                    row.reason = "cancelled while it was running"
                    self._propagation.finish(row, State.CANCELLED, now)
                else:
                    self._release(row, now, delay_seconds, reason)
            self._tables.announce()
        self._tables.emit_ended()
        return ours

    def request_cancel(self, step_id: int) -> State:
        with self._tables.changed:
            row = self._tables.steps.get(step_id)
            if row is None:
                raise RunNotFoundError("step", str(step_id))
            if not row.state.is_terminal:
                self._tables.note("step.cancelled", f"step:{step_id}", {"run": row.run_id})
            self._approvals.cancel(row, datetime.now(UTC))
            self._tables.announce()
        self._tables.emit_ended()
        return row.state

    def invalidate(self, targets: Sequence[Target]) -> int:
        tables = self._tables
        with tables.changed:
            subject, details = of_targets(targets)
            actor = new_line("versions.invalidated", subject).actor
            number = 0
            for target in dict.fromkeys(targets):
                before = tables.in_use(target)
                if before is not None:
                    change = tables.change_output(target, ChangeKind.INVALIDATED, None, before, actor, None)
                    del tables.current[target]
                    tables.steps[before.step_id].invalidated_at = change.at
                    tables.publish(target, tables.steps[before.step_id].stored, in_use=False)
                    number += 1
            if number:
                tables.note("versions.invalidated", subject, {"versions": number, **details})
        self._publish(targets)
        return number

    def cancel_run(self, run_id: str) -> list[int]:
        with self._tables.changed:
            run = self._tables.runs.get(run_id)
            if run is None:
                raise RunNotFoundError("run", run_id)
            now = datetime.now(UTC)
            number = sum(not row.state.is_terminal for row in run.steps.values())
            if number:
                self._tables.note("run.cancelled", f"run:{run_id}", {"steps": number})
            for row in reversed(run.steps.values()):  # readers first, so that they end as cancelled themselves
                self._approvals.cancel(row, now)
            # what was asked counts, even if nothing of it was left to cancel
            run.is_cancelled = run.is_cancelled or run.record().state in (State.RUNNING, State.CANCELLING)
            self._tables.announce()
        self._tables.emit_ended()
        return [row.id for row in run.steps.values() if row.state is State.CANCELLING]

    # --- placing ------------------------------------------------------------------------------------------

    def _recent(self, new: NewStep, run: NewRun, seconds: float) -> StepRow | None:
        """Return the step of a target that was placed so lately that it answers instead of a new one."""
        row = self._tables.steps.get(self._tables.newest.get((new.asset, new.partition_key), 0))
        if row is not None and new.same_config and row.new.config_hash != new.config_hash:
            return None
        if row is None or row.created_at <= run.created_at - timedelta(seconds=seconds):
            return None
        return row

    def _place(self, run_row: RunRow, run: NewRun, new: NewStep, earlier: list[PlacedStep]) -> PlacedStep:
        tables = self._tables
        target = (new.asset, new.partition_key)
        own = run_row.steps.get(target)
        if own is not None:
            return PlacedStep(own.id, own.run_id, own.state, deduplicated=True)
        recent = None if run.unique_seconds is None else self._recent(new, run, run.unique_seconds)
        if recent is not None:
            run_row.joined[target] = recent
            return PlacedStep(recent.id, recent.run_id, recent.state, deduplicated=True)
        reuse = new.reuse
        if reuse is None and not new.forced and new.skip is None:
            reuse = tables.current.get(target)  # committed since the plan was made
            if reuse is not None and new.same_config and tables.steps[reuse].new.config_hash != new.config_hash:
                reuse = None
        inputs = [tables.steps[earlier[position].id] for position in new.inputs]
        ended = None
        if reuse is None and (inputs or new.skip is not None):
            states = [one.state for one in inputs]
            if new.skip is not None or not OPEN_OR_THERE.issuperset(states):
                ended = over_before_it_begins(new, states, lambda read: _target(tables.steps[earlier[read].id]))
        if reuse is None and ended is None and target in tables.active:
            joined = tables.steps[tables.active[target]]
            joined.priority = min(joined.priority, new.priority)
            run_row.joined[target] = joined
            tables.joiners[joined.id].append(run.id)
            return PlacedStep(joined.id, joined.run_id, joined.state, deduplicated=True)
        row = StepRow(next(tables.step_ids), run, new, _PENDING)
        tables.steps[row.id] = row
        run_row.steps[target] = row
        tables.by_asset[row.asset].append(row.id)
        if reuse is not None:
            row.state = State.REUSED
            row.output_step = reuse
            row.finished_at = run.created_at
            row.stored = tables.steps[reuse].stored
        elif ended is not None:
            tables.newest[target] = row.id
            row.state, row.reason = ended
            row.finished_at = run.created_at
            if tables.watch is not None:
                tables.watch.ended(row, run.created_at)
        else:
            tables.active[target] = tables.newest[target] = row.id
            run_row.open += 1
            if inputs or row.scheduled_at is not None:
                self._wait_for(row, inputs, run)
        return make_placed(row.id, row.run_id, row.state)

    def _refuse_conflict(self, run: RunRow | None, new: NewStep) -> None:
        """Refuse a request that would join work under way with another config, before anything is placed."""
        target = (new.asset, new.partition_key)
        there = run.steps.get(target) if run is not None else None
        if there is None and target in self._tables.active:
            there = self._tables.steps[self._tables.active[target]]
        if there is not None and there.new.config_hash != new.config_hash:
            raise RunConflictError(*target, there.run_id)

    def _wait_for(self, row: StepRow, parents: list[StepRow], run: NewRun) -> None:
        new = row.new
        if new.optional:
            row.optional = {parents[at].id for at, position in enumerate(new.inputs) if position in new.optional}
            row.skips_left = len(parents) if new.all_optional else None
        waiting = 0
        for parent in parents:
            if not parent.state.is_terminal:
                waiting += 1
                if parent.children is None:
                    parent.children = []
                parent.children.append(row.id)
            elif parent.state is State.SKIPPED and row.skips_left is not None:
                row.skips_left -= 1
        if waiting:
            row.waiting_on, row.state = waiting, _WAITING
        elif row.scheduled_at is not None and row.scheduled_at > run.created_at:
            row.state = State.SCHEDULED

    # --- ending attempts ----------------------------------------------------------------------------------

    def _ours(self, attempt: Attempt) -> StepRow | None:
        row = self._tables.steps.get(attempt.step_id)
        if row is None or row.token != attempt.token:
            return None
        return row if row.state is _RUNNING or row.state is _CANCELLING else None

    def _commit(self, completion: AttemptResult) -> CommitResult:
        row, outcome, tables = self._ours(completion.attempt), completion.outcome, self._tables
        if row is None:
            stale = self._tables.steps.get(completion.attempt.step_id)
            return make_commit_result(
                completion.attempt.step_id, stale.state if stale else State.NOT_FOUND, accepted=False
            )
        row.inputs = completion.inputs
        if completion.ran and completion.code_version != row.new.code_version:
            row.new = replace(row.new, code_version=completion.code_version)
        released: tuple[int, ...] = ()
        if type(outcome) is Succeeded:
            stored, row_id = outcome.stored, row.id
            row.stored = stored if stored.payload is None else replace(stored)
            row.output_step = row_id
            if tables.publisher is not None:
                tables.publish((row.asset, row.partition_key), row.stored)
            if tables.runs[row.run_id].scatter is None:
                tables.current[row.asset, row.partition_key] = row_id
            for read in completion.inputs:
                tables.readers[read.step_id].append(row_id)
            released = self._propagation.finish(row, _COMPLETED, completion.finished_at)
        elif isinstance(outcome, Failed):
            self._failed(row, outcome, completion)
        elif isinstance(outcome, Snoozed) and row.state is not State.CANCELLING:
            self._release(row, completion.finished_at, outcome.after_seconds, outcome.reason)
        elif isinstance(outcome, Scattered) and row.state is not State.CANCELLING:
            self._scatters.close(row, outcome, completion.inputs, completion.finished_at)
        elif isinstance(outcome, Suspended) and row.state is not State.CANCELLING:
            self._approvals.ask(row, outcome)
        elif isinstance(outcome, Skipped):
            row.reason = outcome.reason
            released = self._propagation.finish(row, State.SKIPPED, completion.finished_at)
        else:
            row.reason = outcome.reason if isinstance(outcome, Snoozed | Suspended | Stopped) else None
            self._propagation.finish(row, State.CANCELLED, completion.finished_at)
        if completion.checks:
            insert_checks(self._tables, completion.checks)
        return make_commit_result(row.id, row.state, accepted=True, released=released)

    def _failed(self, row: StepRow, outcome: Failed, completion: AttemptResult) -> None:
        row.error, row.error_type, row.error_data = outcome.error, outcome.error_type, outcome.data
        delay = completion.retry_in_seconds
        if row.state is State.CANCELLING:
            self._propagation.finish(row, State.CANCELLED, completion.finished_at)
        elif delay is None:
            self._propagation.finish(row, State.FAILED, completion.finished_at)
        else:
            row.scheduled_at = completion.finished_at + timedelta(seconds=delay)
            self._propagation.end_attempt(row, State.FAILED, completion.finished_at, retry_at=row.scheduled_at)
            row.state = State.RETRYING

    def _release(self, row: StepRow, now: datetime, delay_seconds: float, reason: str) -> None:
        row.attempt -= 1
        row.reason = reason or None
        row.token = 0
        row.scheduled_at = now + timedelta(seconds=delay_seconds) if delay_seconds else None
        row.state = State.SCHEDULED if delay_seconds else State.PENDING


def _recordable(completion: AttemptResult) -> AttemptResult | None:
    """Return a completion that can be recorded; None when it names no attempt."""
    return make_recordable(completion) if can_be_committed(completion) else None


def _target(row: StepRow) -> Target:
    return row.asset, row.partition_key
