"""The data of the in-memory store: the same entities as the tables of the PostgreSQL one."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from flowstone import telemetry
from flowstone.core.check_record import CheckRecord
from flowstone.core.forks import renew_after_fork
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.run_details import RunInfo
from flowstone.core.state import State
from flowstone.core.step import (
    AttemptRecord,
    InputVersion,
    NewRun,
    NewStep,
    RunRecord,
    StepRecord,
    Target,
    run_state,
)


class StepRow:
    """One step; mutable, only touched under the store's lock."""

    __slots__ = (
        "asset",
        "attempt",
        "attempts",
        "children",
        "created_at",
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
        "partition",
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
        self.partition = new.partition
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
            partition=self.partition,
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
        self.info = RunInfo(id=new.id, kind=new.kind, details=new.details)
        self.steps: dict[Target, StepRow] = {}
        self.joined: dict[Target, StepRow] = {}
        self.open = 0
        self.is_cancelled = False
        self.is_emitted = False
        self.scatter: ScatterRow | None = None

    def record(self) -> RunRecord:
        """Return an immutable picture of the run with its counts."""
        counts: dict[State, int] = defaultdict(int)
        steps = (*self.steps.values(), *self.joined.values())
        for step in steps:
            counts[step.state] += 1
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
        )

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


class Tables:
    """All rows, with the one lock that makes each method of the store a transaction."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.waiters = 0
        self.steps: dict[int, StepRow] = {}
        self.runs: dict[str, RunRow] = {}
        self.active: dict[Target, int] = {}
        self.joiners: defaultdict[int, list[str]] = defaultdict(list)
        self.touched: dict[str, None] = {}
        """Runs that may be over, while somebody listens for that."""
        self.current: dict[Target, int] = {}
        self.newest: dict[Target, int] = {}
        self.by_asset: dict[str, list[int]] = defaultdict(list)
        self.readers: dict[int, list[int]] = defaultdict(list)
        self.checks: dict[str, list[CheckRecord]] = defaultdict(list)
        self.checks_of_step: dict[int, list[CheckRecord]] = defaultdict(list)
        self.step_ids = count(1)
        self.tokens = count(1)
        self.after_end: Callable[[StepRow, datetime], None] | None = None
        # with more steps than this the next run makes room first
        self.max_steps: int | None = None
        self.make_room: Callable[[], None] = lambda: None
        self.after_fork: Callable[[], None] = lambda: None
        # the lock is held meanwhile, so that a forked child sees nothing half done
        renew_after_fork(self, lambda tables: tables.after_fork(), hold=True)

    def note_end(self, row: StepRow) -> None:
        """Note which runs may be over because a step is; the caller holds the lock."""
        waiting = self.joiners.pop(row.id, ())
        if telemetry.listeners:
            self.touched |= dict.fromkeys((row.run_id, *waiting))

    def emit_ended(self) -> None:
        """Emit `run.ended` for runs that are over since the last time; called without the lock."""
        if not self.touched:
            return
        ended = []
        with self.changed:
            touched, self.touched = self.touched, {}
            for run_id in touched:
                run = self.runs.get(run_id)
                if run is None or run.open or run.is_emitted:
                    continue
                record = run.record()
                if record.state.is_terminal:
                    run.is_emitted = True
                    ended.append(record)
        for record in ended:
            telemetry.emit_run_ended(record)

    def announce(self) -> None:
        """Wake whoever waits for a change; called with the lock held."""
        if self.waiters:
            self.changed.notify_all()
