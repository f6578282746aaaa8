"""The data of the in-memory store, in the tables of the PostgreSQL one, and what follows from an end.

`Propagation` is the counterpart of `stores/postgres/commit`: children, runs, targets.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from operator import attrgetter
from typing import Any, Protocol
from uuid import uuid4

from flowstone import telemetry
from flowstone.core.audit import AuditRecord
from flowstone.core.output import MEMORY_ISSUER, JsonValue, Publication, StoredOutput
from flowstone.core.route import ALL_SKIPPED, decision_of
from flowstone.core.run_details import make_run_info
from flowstone.core.state import State
from flowstone.core.step import (
    AttemptRecord,
    CheckRecord,
    InputVersion,
    NewRun,
    NewStep,
    RunRecord,
    StepRecord,
    Target,
    run_state,
)
from flowstone.core.version import ChangeKind, CommittedAt, OutputChange
from flowstone.protocols import Publisher
from flowstone.stores.audit import new_line

# read once: a member is looked up by the class of its enumeration each time
_WAITING, _SCHEDULED, _PENDING = State.WAITING, State.SCHEDULED, State.PENDING
_RUNNING, _CANCELLING, _COMPLETED = State.RUNNING, State.CANCELLING, State.COMPLETED

_state_of = attrgetter("state")

_MAX_LINES = 100_000
"""Lines of the audit log that are kept in memory; the oldest go first."""


class StepRow:
    """One step; mutable, only touched under the store's lock."""

    __slots__ = (
        "asset",
        "attempt",
        "attempts",
        "children",
        "created_at",
        "erased_at",
        "error",
        "error_data",
        "error_type",
        "executor",
        "finished_at",
        "id",
        "inputs",
        "invalidated_at",
        "new",
        "optional",
        "output_step",
        "partition_key",
        "priority",
        "reason",
        "run_id",
        "scheduled_at",
        "skips_left",
        "started_at",
        "state",
        "stored",
        "token",
        "waiting_on",
    )

    def __init__(self, step_id: int, run: NewRun, new: NewStep, state: State) -> None:
        self.id = step_id
        self.run_id = run.id
        self.executor = run.executor
        self.created_at = run.created_at
        self.new = new
        self.asset = new.asset
        self.partition_key = new.partition_key
        self.priority = new.priority
        self.scheduled_at = new.scheduled_at
        self.state = state
        self.attempt = 0
        self.token = 0
        self.waiting_on = 0
        self.output_step: int | None = None
        self.stored: StoredOutput | None = None
        self.inputs: tuple[InputVersion, ...] = ()
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.invalidated_at: datetime | None = None
        self.erased_at: datetime | None = None
        self.error: str | None = None
        self.error_type: str | None = None
        self.error_data: Mapping[str, JsonValue] | None = None
        self.reason: str | None = None
        # made when needed: most steps of a large plan have neither
        self.children: list[int] | None = None
        # parents that it can do without; how many more skips of inputs it takes until it is skipped itself
        self.optional: set[int] | None = None
        self.skips_left: int | None = None
        self.attempts: list[AttemptRecord] | None = None

    def record(self) -> StepRecord:
        """Return an immutable picture of the row."""
        return StepRecord(
            id=self.id,
            run_id=self.run_id,
            asset=self.asset,
            partition_key=self.partition_key,
            state=self.state,
            attempt=self.attempt,
            max_attempts=self.new.max_attempts,
            priority=self.priority,
            queue=self.new.queue,
            executor=self.executor,
            created_at=self.created_at,
            scheduled_at=self.scheduled_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            error=self.error,
            error_type=self.error_type,
            error_data=self.error_data,
            reason=self.reason,
            output_step=self.output_step,
            stored=self.stored,
            code_version=self.new.code_version,
            waiting_on=self.waiting_on,
            forced=self.new.forced,
            invalidated_at=self.invalidated_at,
            erased_at=self.erased_at,
        )


@dataclass(slots=True)
class ScatterRow:
    """What a run of items needs to know of its scatter."""

    run_id: str
    step_id: int
    is_open: bool = True
    is_stopped: bool = False
    allowed: int | None = None
    failures: int = 0

    @property
    def is_exceeded(self) -> bool:
        """Whether more items failed than may."""
        return self.allowed is not None and self.failures > self.allowed


class RunRow:
    """One run and its steps."""

    __slots__ = ("info", "is_cancelled", "is_emitted", "joined", "new", "open", "scatter", "steps")

    def __init__(self, new: NewRun) -> None:
        self.new = new
        self.info = make_run_info(id=new.id, kind=new.kind, details=new.details)
        self.steps: dict[Target, StepRow] = {}
        self.joined: dict[Target, StepRow] = {}
        self.open = 0
        self.is_cancelled = False
        self.is_emitted = False
        self.scatter: ScatterRow | None = None

    def record(self) -> RunRecord:
        """Return an immutable picture of the run with its counts."""
        steps = (*self.steps.values(), *self.joined.values())
        counts: dict[State, int] = Counter(map(_state_of, steps))
        state = self.state(counts)
        ends = [step.finished_at for step in steps if step.finished_at] if state is not State.RUNNING else []
        return RunRecord(
            id=self.new.id,
            kind=self.new.kind,
            selection=self.new.selection,
            executor=self.new.executor,
            state=run_state(state, counts),
            priority=self.new.priority,
            max_concurrency=self.new.max_concurrency,
            created_at=self.new.created_at,
            finished_at=max(ends, default=self.new.created_at) if state is not State.RUNNING else None,
            retry_of=self.new.retry_of,
            parent=self.new.parent,
            counts=dict(counts),
            details=self.new.details.masked(),
            assets=self.new.assets,
            **self.requested_partitions(),
            requested_by=self.new.requested_by,
            requested_via=self.new.requested_via,
        )

    def requested_partitions(self) -> dict[str, Any]:
        """Return which partitions were asked for."""
        keys = list(
            dict.fromkeys(key for asset, key in (*self.steps, *self.joined) if key and asset in self.new.assets)
        )
        if not keys:
            return {}
        return {"first_partition": keys[0], "last_partition": keys[-1], "partitions": len(keys)}

    def state(self, counts: Mapping[State, int]) -> State:
        """Return the state of the run from those of its steps."""
        if any(not state.is_terminal for state in counts) or (self.scatter and self.scatter.is_open):
            return State.RUNNING
        if self.scatter and self.scatter.failures <= (self.scatter.allowed or 0):
            return State.CANCELLED if counts.get(State.CANCELLED) else State.COMPLETED
        if counts.get(State.FAILED) or counts.get(State.UPSTREAM_FAILED):
            return State.FAILED
        if counts.get(State.CANCELLED) or self.is_cancelled:
            return State.CANCELLED
        return State.COMPLETED


class DecidesNotifications(Protocol):
    """Decides on notifications for what happens in the store, with its lock held."""

    def ended(self, row: StepRow, now: datetime) -> None:
        """A step is over."""

    def checked(self, one: CheckRecord, row: StepRow) -> None:
        """A check looked at the value of a step."""

    def concluded(self, automation: str, error: str | None) -> None:
        """An automation was evaluated, or failed."""

    def requested(self, approval_id: int, row: StepRow, message: str) -> None:
        """A step waits for a person's decision."""


class Tables:
    """All rows, with the one lock that makes each method of the store a transaction."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        # the same lock: entering it directly is cheaper, for methods that every step passes through
        self.changed = threading.Condition(self.lock)
        self.waiters = 0
        self.steps: dict[int, StepRow] = {}
        self.runs: dict[str, RunRow] = {}
        self.active: dict[Target, int] = {}
        self.joiners: defaultdict[int, list[str]] = defaultdict(list)
        self.touched: dict[str, None] = {}
        """Runs that may be over, while a client listens for that."""
        self.current: dict[Target, int] = {}
        self.newest: dict[Target, int] = {}
        self.changes: defaultdict[Target, list[OutputChange]] = defaultdict(list)
        """What besides commits changed which version of a target is in use, oldest first."""
        self.change_ids = count(1)
        self.by_asset: dict[str, list[int]] = defaultdict(list)
        self.readers: dict[int, list[int]] = defaultdict(list)
        self.checks: dict[str, list[CheckRecord]] = defaultdict(list)
        self.checks_of_step: dict[int, list[CheckRecord]] = defaultdict(list)
        self.step_ids = count(1)
        self.tokens = count(1)
        self.publisher: Publisher | None = None
        self.unpublished: dict[Target, Publication] = {}
        self.issuer = f"{MEMORY_ISSUER}{uuid4()}"
        self.audit: deque[AuditRecord] = deque(maxlen=_MAX_LINES)
        self.audit_ids = count(1)
        self.after_end: Callable[[StepRow, datetime], None] | None = None
        self.events: list[telemetry.Event] = []
        self.watch: DecidesNotifications | None = None
        # with more steps than this the next run makes room first
        self.max_steps: int | None = None
        self.make_room: Callable[[], None] = lambda: None

    def note_end(self, row: StepRow) -> None:
        """Note which runs may be over because a step is; the caller holds the lock."""
        waiting = self.joiners.pop(row.id, ())
        if telemetry.listeners:
            self.touched |= dict.fromkeys((row.run_id, *waiting))

    def emit_ended(self) -> None:
        """Emit what was noted, and `run.ended` for runs that are over; called without the lock."""
        if not self.touched and not self.events:
            return
        ended = []
        with self.changed:
            events, self.events = self.events, []
            touched, self.touched = self.touched, {}
            for run_id in touched:
                run = self.runs.get(run_id)
                if run is None or run.open or run.is_emitted:
                    continue
                record = run.record()
                if record.state.is_terminal:
                    run.is_emitted = True
                    ended.append(record)
        for event in events:
            event.emit()
        for record in ended:
            telemetry.emit_run_ended(record)

    def note(
        self,
        action: str,
        subject: str,
        details: Mapping[str, object] | None = None,
        *,
        by: str | None = None,
        at: datetime | None = None,
    ) -> None:
        """Write a line of the audit log; called with the lock held, by what does the action.

        See `flowstone.stores.postgres.audit.note`, its counterpart, which every action has to call as well.
        """
        line = new_line(action, subject, details, by=by)
        self.audit.append(AuditRecord(id=next(self.audit_ids), at=at or datetime.now(UTC), **line._asdict()))

    def in_use(self, target: Target) -> CommittedAt | None:
        """Return the version of a target that is in use, and since when; called with the lock held."""
        step_id = self.current.get(target)
        if step_id is None:
            return None
        restored = self.restored(target)
        at = restored.at if restored is not None else self.steps[step_id].finished_at
        assert at is not None
        return CommittedAt(step_id, at)

    def restored(self, target: Target) -> OutputChange | None:
        """Return the restore that put the version in use of a target there; None when its commit did."""
        changes = self.changes.get(target)
        if not changes or changes[-1].kind is not ChangeKind.RESTORED:
            return None
        newest, step_id = changes[-1], self.current.get(target)
        if step_id != newest.step_id or step_id is None:
            return None
        return newest

    def change_output(
        self,
        target: Target,
        kind: ChangeKind,
        step_id: int | None,
        before: CommittedAt | None,
        actor: str | None,
        reason: str | None,
    ) -> OutputChange:
        """Record a change of the version in use that no commit makes; called with the lock held."""
        at = datetime.now(UTC)
        earlier = [before.at] if before is not None else []
        earlier += [change.at for change in self.changes[target][-1:]]
        if earlier and at <= max(earlier):
            at = max(earlier) + timedelta(microseconds=1)  # a change is later than what it changes
        change = OutputChange(
            id=next(self.change_ids),
            asset=target[0],
            partition_key=target[1],
            kind=kind,
            step_id=step_id,
            before=before.step_id if before is not None else None,
            before_since=before.at if before is not None else None,
            at=at,
            actor=actor,
            reason=reason,
        )
        self.changes[target].append(change)
        return change

    def publish(self, target: Target, stored: StoredOutput | None, *, in_use: bool = True) -> None:
        """Note that others are to see a version, or none any more; called with the lock held."""
        if self.publisher is not None and stored is not None and self.publisher.concerns(stored):
            now = datetime.now(UTC)
            publication = Publication(*target, next(self.tokens), self.issuer, stored, in_use, now)
            self.unpublished[target] = publication

    def announce(self) -> None:
        """Wake whoever waits for a change; called with the lock held."""
        if self.waiters:
            self.changed.notify_all()


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
        if state is _COMPLETED:
            row.error = row.error_type = row.error_data = None
        if (row.attempts or state is not _COMPLETED) and (row.state is _RUNNING or row.state is _CANCELLING):
            self.end_attempt(row, state, now)
        row.state = state
        row.finished_at = now
        tables = self._tables
        tables.active.pop((row.asset, row.partition_key), None)
        tables.runs[row.run_id].open -= 1
        if tables.watch is not None:
            tables.watch.ended(row, now)
        if telemetry.listeners or row.id in tables.joiners:
            tables.note_end(row)
        if tables.after_end is not None:
            tables.after_end(row, now)
        if row.children is None:
            return ()
        children, row.children = row.children, None
        if state is _COMPLETED:
            if row.stored is not None and row.stored.metadata:
                return self._leave_out(row, children, now) + self._release(children, now)
            return self._release(children, now)
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
                read=() if retry_at is None else tuple(sorted({one.step_id for one in row.inputs})),
            )
        )

    def end_below(self, child: StepRow, parent: StepRow, now: datetime) -> None:
        """End a step because its input ended without a result."""
        child.reason = f"input {parent.asset} {parent.partition_key}".rstrip() + f" ended as {parent.state}"
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
            if not child.waiting_on and child.state is _WAITING:
                if child.scheduled_at is None:
                    child.state = _PENDING
                else:
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
    child.state = _SCHEDULED if later else _PENDING
