"""What verbs answer: of one step, and of runs of several.

A step answers with a `Materialization`, a run with a `RunResult`, with `Progress` on its way, and with a
`RunHandle` when nobody waits for it.

`Results` is the only place where a record of the store becomes a result; values are loaded when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

from flowstone.core.clean import error_line
from flowstone.core.definition import write_partition
from flowstone.core.html_tables import html_table
from flowstone.core.materialization import Materialization
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.partitions import Partition, decode_partition, encode_partition
from flowstone.core.state import State
from flowstone.core.step import RunRecord, StepRecord, Target
from flowstone.errors import FlowStoneError, StepCancelledError, StepFailedError
from flowstone.protocols import Store

_FAILURES = (State.FAILED, State.UPSTREAM_FAILED)
_WITH_RESULT = (State.COMPLETED, State.REUSED, State.SKIPPED)
_MAX_REPORTED = 5_000
_EVERY = 1_000_000


class Results:
    """Makes what verbs return of a run and of a step, as they are recorded.

    Args:
        store: what is recorded.
        label: writes an encoded partition of an asset for people.
        load: loads a stored value.
    """

    def __init__(
        self, store: Store, label: Callable[[str, str], str], load: Callable[[StoredOutput], object]
    ) -> None:
        self._store = store
        self._label = label
        self._load = load

    def of_record(self, record: StepRecord, *, deduplicated: bool = False) -> Materialization:
        """Return the materialization that a finished step stands for; its value is loaded when it is asked for.

        Args:
            record: the step.
            deduplicated: whether whoever asked for it joined the work of another request.

        Raises:
            StepFailedError: the step has no result.
            StepCancelledError: it was cancelled.
        """
        if record.state is State.CANCELLED:
            raise StepCancelledError(record.asset, record.reason)
        if record.state not in _WITH_RESULT:
            raise StepFailedError(
                record.asset,
                record.partition_key,
                record.state.value,
                record.error or record.reason,
                error_type=record.error_type,
                attempts=record.attempt,
                data=record.error_data,
                label=self._label(record.asset, record.partition_key),
            )
        source = record.output_step or record.id
        return Materialization(
            asset=record.asset,
            partition=decode_partition(record.partition_key),
            run_id=record.run_id,
            step_id=record.id,
            state=record.state,
            attempt=record.attempt,
            inputs=self._store.catalog.inputs([source]).get(source, ()),
            stored=record.stored,
            started_at=record.started_at,
            finished_at=record.finished_at,
            code_version=record.code_version,
            deduplicated=deduplicated,
            reason=record.reason,
            invalidated_at=record.invalidated_at,
            load=self._load,
            checks=lambda: self._store.checks.of_steps([source])[source],
        )

    def of_run(self, record: RunRecord, targets: Sequence[Target] | None = None) -> RunResult:
        """Return the outcome of a run.

        Args:
            record: the run.
            targets: what was asked for; None for what is recorded of that.
        """
        catalog = self._store.catalog
        return RunResult(
            record=record,
            targets=RecordedTargets(lambda: self._targets(record)) if targets is None else targets,
            find=self.of_record,
            steps=lambda state: catalog.steps(record.id, state=state, limit=_EVERY),
            label=self._label,
        )

    def _targets(self, record: RunRecord) -> list[Target]:
        """Return what a run was asked for: the steps of the assets that it names."""
        steps = self._store.catalog.steps(record.id, limit=_EVERY)
        return [(one.asset, one.partition_key) for one in steps if not record.assets or one.asset in record.assets]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """A step of a run that has no result.

    Args:
        asset: its asset.
        partition: value of its partition; None without partitions.
        state: `failed` or `upstream_failed`.
        error_type: qualified name of the class of what was raised; None when it never started.
        error: recorded text with the traceback, or why it never started.
        attempts: how many attempts were made.
        data: what `Fatal(..., data=...)` said.
        step_id: the step.
    """

    asset: str
    partition: Partition
    state: State
    error_type: str | None
    error: str
    attempts: int
    data: Mapping[str, JsonValue] | None
    step_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedStep:
    """A step of a run that is over.

    Args:
        asset: its asset.
        partition: value of its partition; None without partitions.
        state: what it ended as.
        error_type: qualified name of the class of what was raised, if anything was.
        error: type and first line of the error, or why it was skipped or never started.
        step_id: the step.
    """

    asset: str
    partition: Partition
    state: State
    error_type: str | None
    error: str | None
    step_id: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: what `on_progress` receives.

    Args:
        run_id: the run.
        total: number of steps.
        counts: number of steps in each state that occurs.
        waiting_for: what it waits for, when nothing of it moves.
        finished: the steps that ended since the last report; empty for runs of more than 5,000 steps.
    """

    run_id: str
    total: int
    counts: dict[State, int]
    waiting_for: tuple[str, ...] = ()
    finished: tuple[FinishedStep, ...] = ()

    @property
    def done(self) -> int:
        """Number of steps that are over."""
        return sum(number for state, number in self.counts.items() if state.is_terminal)

    @property
    def failed(self) -> int:
        """Number of steps that failed or could not start because of one."""
        return sum(self.counts.get(state, 0) for state in _FAILURES)

    @property
    def running(self) -> int:
        """Number of steps being executed."""
        return self.counts.get(State.RUNNING, 0) + self.counts.get(State.CANCELLING, 0)


class RecordedTargets(Sequence[Target]):
    """What a run was asked for, as far as it is recorded: read when it is needed."""

    def __init__(self, read: Callable[[], list[Target]]) -> None:
        self._read = read
        self._found: list[Target] | None = None

    def _all(self) -> list[Target]:
        if self._found is None:
            self._found = self._read()
        return self._found

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        """Return a target."""
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())


@dataclass(slots=True, kw_only=True)
class RunResult:
    """The outcome of `materialize_all` or `backfill`.

    Args:
        record: the run as it is recorded, with its counts.
        targets: what was asked for.
        find: loads the materialization of a step.
        steps: reads the steps of the run in some state.
        label: writes an encoded partition of an asset for people.

    A run with failures is not a success: see `ok`, `errors` and `raise_for_failures`.
    """

    record: RunRecord
    targets: Sequence[Target]
    find: Callable[[StepRecord], Materialization] = field(repr=False)
    steps: Callable[[State | None], list[StepRecord]] = field(repr=False)
    label: Callable[[str, str], str] = field(default=lambda asset, key: write_partition(None, key), repr=False)

    @property
    def run_id(self) -> str:
        """The run."""
        return self.record.id

    @property
    def state(self) -> State:
        """`completed`, `failed`, `cancelled`, or `running` when nobody waited."""
        return self.record.state

    @property
    def ok(self) -> bool:
        """Whether everything that was asked for is there."""
        return self.record.state is State.COMPLETED

    @property
    def total(self) -> int:
        """Number of steps."""
        return self.record.total

    @property
    def succeeded(self) -> int:
        """Number of steps that computed and committed a value."""
        return self.record.counts.get(State.COMPLETED, 0)

    @property
    def reused(self) -> int:
        """Number of steps served by what was committed before."""
        return self.record.counts.get(State.REUSED, 0)

    @property
    def failed(self) -> int:
        """Number of steps that failed, or never started because an input failed."""
        return sum(self.record.counts.get(state, 0) for state in _FAILURES)

    @property
    def skipped(self) -> int:
        """Number of steps with nothing to do."""
        return self.record.counts.get(State.SKIPPED, 0)

    @property
    def cancelled(self) -> int:
        """Number of steps that were cancelled."""
        return self.record.counts.get(State.CANCELLED, 0)

    @property
    def errors(self) -> dict[tuple[str, str], str]:
        """Text of the error of each failed (asset, encoded partition)."""
        found = [step for state in _FAILURES for step in self.steps(state)]
        return {(step.asset, step.partition_key): step.error or step.reason or step.state.value for step in found}

    @property
    def failures(self) -> list[StepFailure]:
        """The steps that failed, and those that never started because of one, as data."""
        return [_failure_of(step) for state in _FAILURES for step in self.steps(state)]

    @property
    def results(self) -> dict[Partition, Materialization]:
        """The materialization of each partition of the one asset that was asked for; see `materializations`.

        Raises:
            FlowStoneError: several assets were asked for.
        """
        self._one_asset(".results")
        return {decode_partition(key): one for (_, key), one in self.materializations.items()}

    @property
    def materializations(self) -> dict[Target, Materialization]:
        """The materialization of each target that has one; values are loaded when asked for."""
        requested = set(self.targets)
        found = [step for state in (State.COMPLETED, State.REUSED) for step in self.steps(state)]
        return {
            (step.asset, step.partition_key): self.find(step)
            for step in found
            if (step.asset, step.partition_key) in requested
        }

    @property
    def value(self) -> Any:
        """The value of the one target; a dict of partition to value for one asset with several.

        Raises:
            StepFailedError: the target has no value.
            FlowStoneError: several assets were asked for.
        """
        self._one_asset(".value")
        self.raise_for_failures()
        found = self.materializations
        if len(self.targets) == 1 and not self.targets[0][1]:
            return self._only(found).value
        return {decode_partition(key): one.value for (_, key), one in found.items()}

    def raise_for_failures(self) -> RunResult:
        """Return the result itself, or raise the first error.

        Raises:
            StepFailedError: something failed.
            StepCancelledError: the run was cancelled; names the states of its steps.
        """
        if self.failed:
            step = next(step for state in _FAILURES for step in self.steps(state))
            more = f" ({self.failed - 1} more steps failed)" if self.failed > 1 else ""
            raise StepFailedError(
                step.asset,
                step.partition_key,
                step.state.value,
                (step.error or step.reason or "") + more,
                error_type=step.error_type,
                attempts=step.attempt,
                data=step.error_data,
                label=self.label(step.asset, step.partition_key),
            )
        if self.state is State.CANCELLED:
            became = ", ".join(f"{number:,} {state.value}" for state, number in sorted(self.record.counts.items()))
            raise StepCancelledError(self.record.selection, f"of the steps of run {self.run_id}, {became}")
        return self

    def to_json(self) -> dict[str, JsonValue]:
        """Return the outcome as plain data."""
        return {
            "run_id": self.run_id,
            "state": self.state.value,
            "total": self.total,
            "succeeded": self.succeeded,
            "reused": self.reused,
            "failed": self.failed,
            "skipped": self.skipped,
            "cancelled": self.cancelled,
            "errors": [
                {
                    "asset": one.asset,
                    "partition": encode_partition(one.partition),
                    "error": one.error,
                    "error_type": one.error_type,
                    "attempts": one.attempts,
                    "data": None if one.data is None else dict(one.data),
                }
                for one in self.failures
            ],
        }

    def _repr_html_(self) -> str:
        """What a notebook shows: how many steps ended how, and what failed."""
        counts = [(state.value, f"{number:,}") for state, number in sorted(self.record.counts.items()) if number]
        title = f"Run {self.run_id} of {self.record.selection}: {self.state.value}"
        table = html_table(title, ("state", "steps"), counts)
        if not self.failed:
            return table
        rows = (
            (one.asset, self.label(one.asset, one.partition_key), one.attempt, error_line(one.error) or one.reason)
            for state in _FAILURES
            for one in self.steps(state)
        )
        return table + html_table("Without result", ("asset", "partition", "attempts", "error"), rows)

    def _one_asset(self, read: str) -> None:
        assets = {asset for asset, _ in self.targets}
        if len(assets) != 1:
            raise FlowStoneError(f"{len(assets)} assets were asked for; read .materializations instead of {read}")

    def _only(self, found: dict[Target, Materialization]) -> Materialization:
        target = self.targets[0]
        if target not in found:
            label = self.label(*target)
            raise StepFailedError(*target, self.state.value, "it has no value", label=label)
        return found[target]


def _failure_of(step: StepRecord) -> StepFailure:
    return StepFailure(
        asset=step.asset,
        partition=decode_partition(step.partition_key),
        state=step.state,
        error_type=step.error_type,
        error=step.error or step.reason or step.state.value,
        attempts=step.attempt,
        data=step.error_data,
        step_id=step.id,
    )


class ProgressReports:
    """Reports to a listener how far a run is, and what ended since the last report.

    Args:
        steps: reads the steps of the run in some state, at most so many.
        on_progress: the listener.
    """

    def __init__(
        self, steps: Callable[[State, int], Sequence[StepRecord]], on_progress: Callable[[Progress], None]
    ) -> None:
        self._steps = steps
        self._on_progress = on_progress
        self._seen: set[int] = set()
        self._counted: dict[State, int] = {}

    def report(self, record: RunRecord, waiting_for: tuple[str, ...] = ()) -> None:
        """Report how far the run is now."""
        finished = self._finished(record) if record.total <= _MAX_REPORTED else ()
        self._on_progress(Progress(record.id, record.total, record.counts, waiting_for, finished))

    def _finished(self, record: RunRecord) -> tuple[FinishedStep, ...]:
        more = [
            state
            for state, number in record.counts.items()
            if state.is_terminal and number > self._counted.get(state, 0)
        ]
        found = [step for state in more for step in self._steps(state, _MAX_REPORTED) if step.id not in self._seen]
        self._seen.update(step.id for step in found)
        for step in found:
            self._counted[step.state] = self._counted.get(step.state, 0) + 1
        return tuple(map(_finished_of, found))


def _finished_of(step: StepRecord) -> FinishedStep:
    return FinishedStep(
        asset=step.asset,
        partition=decode_partition(step.partition_key),
        state=step.state,
        error_type=step.error_type,
        error=error_line(step.error) or step.reason,
        step_id=step.id,
    )


class RunVerbs(Protocol):
    """What a handle asks of `flow.runs`."""

    def find(self, run_id: str) -> RunRecord | None:
        """Return a run, if there is one."""

    def wait(
        self,
        run_id: str,
        *,
        timeout_seconds: float | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RunResult:
        """Wait until a run is over."""

    def cancel(self, run_id: str) -> RunRecord:
        """Cancel a run."""


class RunHandle:
    """A run that goes on without its caller: what `wait=False` answers with.

    It holds an id and nothing that has to be closed; `flow.runs.wait(run_id)` does the same from anywhere.

    Attributes:
        id: the run.
        record: the run as it was recorded when it was looked at last; None as long as the transaction that placed
            it is not committed.
    """

    def __init__(self, run_id: str, runs: RunVerbs) -> None:
        self.id = run_id
        self.record: RunRecord | None = None
        self._runs = runs

    @property
    def run_id(self) -> str:
        """The run, as results call it."""
        return self.id

    @property
    def state(self) -> State:
        """The state when the run was read last; `not_found` as long as its transaction is not committed."""
        return State.NOT_FOUND if self.record is None else self.record.state

    def refresh(self) -> RunHandle:
        """Read the run again and return the handle itself."""
        self.record = self._runs.find(self.id)
        return self

    def progress(self) -> Progress:
        """Read the run again and return how far it is."""
        self.refresh()
        if self.record is None:
            return Progress(self.id, 0, {})
        return Progress(self.id, self.record.total, self.record.counts)

    def wait(
        self,
        timeout_seconds: float | None = None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RunResult:
        """Wait until the run is over and return its outcome; see `flow.runs.wait`.

        Raises:
            WaitTimeoutError: it was not over in time; it goes on.
            RunNotFoundError: the transaction that placed it was rolled back, or is not committed yet.
        """
        result = self._runs.wait(self.id, timeout_seconds=timeout_seconds, on_progress=on_progress)
        self.record = result.record
        return result

    def cancel(self) -> State:
        """Cancel every step of the run that is not over, and return its state now."""
        self.record = self._runs.cancel(self.id)
        return self.record.state

    def __repr__(self) -> str:
        return f"<run {self.id}: {self.state.value}>"
