"""What is recorded of a step, from its plan to its end: the values that stores, engine and workers exchange.

In the order of a life: `NewStep` and `NewRun` are placed, an `Attempt` is claimed and run, an `AttemptResult` ends
it, a `CommitResult` says what the store made of that, and `StepRecord` and `RunRecord` are read afterwards.
Records only: what follows from an end is the store's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from threading import Lock
from typing import Any, NamedTuple

from flowstone.core.approval import Approval
from flowstone.core.frozen import maker
from flowstone.core.limits import Limit
from flowstone.core.outcome import AttemptOutcome
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.route import ALL_SKIPPED
from flowstone.core.run_details import NO_DETAILS, HasDetails, RunDetails, RunInfo
from flowstone.core.state import ACTIVE, SUCCESS, State
from flowstone.errors import command


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRange:
    """Partitions of one asset to be computed, independent of each other.

    Their steps are made when a worker begins them.

    Args:
        asset: asset name.
        partitions: encoded partitions, each once; read once, while they are placed.
        queue: queue of the steps.
        priority: 0 (first) to 9.
        max_attempts: attempts of each step in all.
        forced: compute what is committed as well.
        code_version: version of the asset's code, when declared.
        config_hash: see `NewStep`.
        same_config: see `NewStep`.
        tags: tags of the asset, for the tools of the queue.
        unique_seconds: see `flowstone.core.step.NewRun`.
    """

    asset: str
    partitions: Iterable[PartitionKey]
    queue: str
    priority: int
    max_attempts: int
    forced: bool
    code_version: str | None
    config_hash: str | None = None
    same_config: bool = False
    tags: tuple[str, ...] = ()
    unique_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class UnstartedTarget:
    """A target that waits in a range for a worker to begin it.

    Args:
        run_id: the backfill.
        paused: whether that run is paused.
        queue: queue on which it is served.
        before: partitions of the run that come before it.
    """

    run_id: str
    paused: bool
    queue: str
    before: int

    def explain(self) -> str:
        """Return what holds it up.

        Example:
            >>> UnstartedTarget("r1", False, "backfill", 2).explain()
            "2 partitions of the backfill r1 come before it in the queue 'backfill'"
        """
        if self.paused:
            return f"its run {self.run_id} is paused: `{command('resume', self.run_id)}`"
        come = "1 partition" if self.before == 1 else f"{self.before} partitions"
        verb = "comes" if self.before == 1 else "come"
        return f"{come} of the backfill {self.run_id} {verb} before it in the queue {self.queue!r}"


class Severity(StrEnum):
    """How much a failed check matters.

    Example:
        >>> Severity("warning") is Severity.WARNING
        True
    """

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRecord:
    """The result of one check on one value.

    Args:
        check: name of the check.
        asset: asset whose value was checked.
        partition_key: its encoded partition.
        step_id: step that computed the value.
        attempt: attempt of that step.
        token: fencing token of that attempt; None for a check that was run again later. Equal results may
            differ in it.
        passed: whether the value is as it should be.
        severity: how much it matters.
        blocking: whether a failure kept (or would have kept) the value from being published.
        description: what the check said, cleaned.
        error: cleaned traceback when the check itself raised or answered with nonsense.
        metadata: small JSON facts.
        started_at: when it started.
        took_seconds: how long it ran.
    """

    check: str
    asset: str
    partition_key: PartitionKey
    step_id: int
    attempt: int
    passed: bool
    started_at: datetime
    token: int | None = field(default=None, compare=False, repr=False)
    severity: Severity = Severity.ERROR
    blocking: bool = False
    description: str = ""
    error: str | None = None
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    took_seconds: float = 0.0

    @property
    def partition(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key

    @property
    def blocks(self) -> bool:
        """Whether this result keeps the value from being published."""
        return self.blocking and not self.passed and self.severity is Severity.ERROR

    def to_json(self) -> dict[str, JsonValue]:
        """Return the result as plain data."""
        return {
            "check": self.check,
            "asset": self.asset,
            "partition": self.partition_key,
            "step_id": str(self.step_id),
            "attempt": self.attempt,
            "passed": self.passed,
            "severity": self.severity.value,
            "blocking": self.blocking,
            "description": self.description,
            "error": self.error,
            "metadata": self.metadata,
            "started_at": self.started_at.isoformat(),
            "took_seconds": self.took_seconds,
        }


type Target = tuple[str, PartitionKey]
"""An (asset name, encoded partition) pair."""


@dataclass(slots=True)
class NewStep:
    """One target of a plan, and the step to be placed for it.

    The planner says what it reads and whether anything has to run; what its asset, the call and the executor say
    of where, when and how often it runs is filled in before it is placed.

    Args:
        asset: asset name.
        partition_key: encoded partition.
        inputs: positions, in the same plan, of the steps whose results it reads.
        reuse: id of the committed step that already serves this target; nothing will run.
        queue: queue of the asset.
        priority: 0 (first) to 9.
        max_attempts: attempts in all.
        scheduled_at: earliest start.
        forced: compute it although a committed success exists. Otherwise a success that was committed since
            the plan was made serves, so that simultaneous requests compute once.
        code_version: version of the asset's code, when declared.
        limits: named limits that hold for the whole fleet.
        optional: those of its inputs that it can do without when they were skipped.
        all_optional: whether it is skipped when all of `inputs` are.
        skip: why there is nothing to do, when that is known before it is placed; nothing will run.
        config_hash: stands for how its run computes it; see `RunDetails.config_hash`.
        same_config: whether only work and results with the same `config_hash` will do.
        tags: tags of the asset, for the tools of the queue.
    """

    asset: str
    partition_key: PartitionKey
    inputs: tuple[int, ...] = ()
    reuse: int | None = None
    queue: str = "assets"
    priority: int = 4
    max_attempts: int = 1
    scheduled_at: datetime | None = None
    forced: bool = False
    code_version: str | None = None
    limits: Mapping[str, Limit] | None = None
    optional: tuple[int, ...] = ()
    all_optional: bool = False
    skip: str | None = None
    config_hash: str | None = None
    same_config: bool = False
    tags: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether it is to be computed."""
        return self.reuse is None and self.skip is None


make_step = maker(NewStep)
"""Makes a step of the same arguments: a plan may have very many."""


@dataclass(slots=True, kw_only=True)
class NewRun:
    """A run to be opened with its steps.

    Args:
        id: run id, unique.
        kind: the verb that asked for it.
        selection: what was asked for, for people.
        executor: name of the executor that places its steps.
        durable: whether committing transactions place what they release (else the caller drives).
        direct: whether workers begin its steps without jobs of their own on the queue.
        priority: 0 (first) to 9.
        max_concurrency: most steps placed at once in the fleet; None for no such limit.
        watched: whether a caller waits for the end and needs a notification.
        created_at: time of the request.
        deps_timeout_seconds: how long a step may wait for inputs from outside the run.
        retry_of: run whose failures this one repeats.
        parent: run of the step whose items are the steps of this one.
        details: what the run is about.
        assets: names of the assets that were asked for.
        unique_seconds: a step of the same target that was placed less than that ago is joined, over or not, forced
            or not.
        requested_by: who asked for it, a person, a program or an automation; None when nobody said so.
        requested_via: by which way, such as `cli`, `web` or `automation`.
        shapes: digests of the shapes of its assets, by name; see `flowstone.core.shape`.
        keys: digests of the partitions of those assets whose steps are of partitions that were checked, by name.
    """

    id: str
    kind: str
    selection: str
    executor: str
    created_at: datetime
    durable: bool = False
    direct: bool = False
    priority: int = 4
    max_concurrency: int | None = None
    watched: bool = False
    deps_timeout_seconds: float = 3600.0
    retry_of: str | None = None
    parent: str | None = None
    details: RunDetails = NO_DETAILS
    assets: tuple[str, ...] = ()
    unique_seconds: float | None = None
    shapes: Mapping[str, str] | None = None
    keys: Mapping[str, str] | None = None
    requested_by: str | None = None
    requested_via: str | None = None


make_run = maker(NewRun)
"""Makes a run of the same arguments."""


@dataclass(slots=True)
class PlacedStep:
    """The step that serves a target which was to be placed.

    Args:
        id: the step that now stands for the target.
        run_id: the run that owns it; another one when the request joined work under way.
        state: its state.
        deduplicated: whether the request joined work under way, or work placed so lately that it answers.
    """

    id: int
    run_id: str
    state: State
    deduplicated: bool = False


make_placed = maker(PlacedStep)
"""Makes the step of a target, of the same arguments: each step of a plan has one."""


@dataclass(slots=True)
class Attempt:
    """One attempt of a step, from its claim to its end: the right to run it, and what a worker has to know of it.

    What stands behind `queued_seconds` is known only of steps that were fetched from the queue.

    Args:
        step_id: the step.
        run_id: its run.
        asset: asset name.
        partition_key: encoded partition.
        attempt: number of this attempt, from 1.
        max_attempts: attempts in all.
        token: fencing token; only the newest one of a step can commit.
        started_at: start of the attempt.
        forced: whether the target is recomputed although a success exists.
        approvals: what people decided at the gates of this step, in order.
        run: what its run is about; None when nobody said.
        queued_seconds: how long it was due before a worker took it, with the wait for the window of a backfill;
            None when nobody measured that.
        job_id: row of the queue; negative for a partition that was taken out of a range.
        snoozes: how often the step gave its attempt back.
        age_seconds: time since the step was placed.
        deps_timeout_seconds: how long the step may wait for inputs from outside its run.
        shape: digest of the shape that its asset had where it was placed; None when that was not recorded.
        keys: digest of the partitions that it had there; see `flowstone.core.shape.Shapes.keys_digest`.
    """

    step_id: int
    run_id: str
    asset: str
    partition_key: PartitionKey
    attempt: int
    max_attempts: int
    token: int
    started_at: datetime
    forced: bool = False
    approvals: tuple[Approval, ...] = ()
    run: RunInfo | None = None
    queued_seconds: float | None = None
    job_id: int = 0
    snoozes: int = 0
    age_seconds: float = 0.0
    deps_timeout_seconds: float = 0.0
    shape: str | None = None
    keys: str | None = None


make_attempt = maker(Attempt)
"""Makes an attempt of the same arguments: every step has one."""


class InputVersion(NamedTuple):
    """One exact input of an attempt: which committed step was read.

    Args:
        parameter: the parameter it was passed to, or the asset's name.
        asset: upstream asset.
        partition_key: its encoded partition.
        step_id: the upstream step whose output was read.
    """

    parameter: str
    asset: str
    partition_key: PartitionKey
    step_id: int

    @property
    def partition(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key


@dataclass(slots=True)
class AttemptResult:
    """The end of one attempt, to be committed.

    Args:
        attempt: the attempt.
        outcome: what came of it.
        inputs: what it read.
        finished_at: when it ended.
        retry_in_seconds: delay until the next attempt; None for no further attempt.
        checks: results of the checks that looked at its value.

    `is_recordable` says that `flowstone.core.recordable` has checked it; a copy (`replace`) is checked again.
        ran: whether the asset's code was asked, or would have been: then `code_version` is recorded.
        code_version: the version that this code declares of itself.
    """

    attempt: Attempt
    outcome: AttemptOutcome
    inputs: tuple[InputVersion, ...]
    finished_at: datetime
    retry_in_seconds: float | None = None
    checks: tuple[CheckRecord, ...] = ()
    ran: bool = False
    code_version: str | None = None
    is_recordable: bool = field(default=False, init=False, compare=False, repr=False)


make_result = maker(AttemptResult)
"""Makes the end of an attempt, of the same arguments: every step has one."""


@dataclass(slots=True)
class CommitResult:
    """What the store made of a completion.

    Args:
        step_id: the step.
        state: its state now.
        accepted: False when the attempt had been superseded; nothing of it was published then.
        released: steps that may start now because this was their last input, when the caller drives the run.
        begun: steps that began with this commit, on the worker that had room for them.
    """

    step_id: int
    state: State
    accepted: bool
    released: tuple[int, ...] = ()
    begun: tuple[BegunStep, ...] = ()


make_commit_result = maker(CommitResult)
"""Makes the answer of a store, of the same arguments: every step has one."""


class BegunStep(NamedTuple):
    """A step that began with the commit of its last input.

    Args:
        queue: the queue whose place it takes.
        attempt: the attempt.
    """

    queue: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class WorkerRoom:
    """What a worker that commits has room for: steps that its commit releases may begin there at once.

    Args:
        worker_id: the lease under which they begin.
        queues: how many, by queue.
        only_idle: the queues among them on which they begin only when nothing else waits: what else waits is about
            to be fetched.
    """

    worker_id: str
    queues: Mapping[str, int]
    only_idle: frozenset[str] = frozenset()


class CommittedOutput(NamedTuple):
    """A committed version of an asset's partition.

    Args:
        step_id: the step that made it.
        stored: where it lies.
        started_at: when computing it started.
        own: whether it is the result of the run that reads it.
    """

    step_id: int
    stored: StoredOutput
    started_at: datetime | None = None
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt of a step, over.

    Args:
        read: the steps whose results it had read, if it was tried again; of the last one the lineage says it.
    """

    attempt: int
    state: State
    started_at: datetime
    finished_at: datetime
    worker: str | None = None
    error: str | None = None
    error_type: str | None = None
    retry_at: datetime | None = None
    read: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Everything that is recorded of a step.

    `output_step` names the step whose output serves: its own id, or for a reused step the earlier one. With
    `erased_at` only the fact of it is left: see `flow.versions.erase`.
    """

    id: int
    run_id: str
    asset: str
    partition_key: PartitionKey
    state: State
    attempt: int
    max_attempts: int
    priority: int
    queue: str
    executor: str
    created_at: datetime
    scheduled_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    worker: str | None = None
    error: str | None = None
    error_type: str | None = None
    reason: str | None = None
    output_step: int | None = None
    stored: StoredOutput | None = None
    code_version: str | None = None
    waiting_on: int = 0
    forced: bool = False
    invalidated_at: datetime | None = None
    error_data: Mapping[str, JsonValue] | None = None
    erased_at: datetime | None = None

    @property
    def partition(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key


def run_state(state: State, counts: Mapping[State, int]) -> State:
    """Return the state of a run for people: `cancelling` while all that is left of it is being cancelled.

    Example:
        >>> run_state(State.RUNNING, {State.CANCELLING: 1, State.CANCELLED: 5}).value
        'cancelling'
    """
    left = {one for one, number in counts.items() if number and not one.is_terminal}
    return State.CANCELLING if state is State.RUNNING and left == {State.CANCELLING} else state


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(HasDetails):
    """A run with the number of its steps in each state.

    `details` says what it is about, without secrets; `assets` names what was asked for; `requested_by` and
    `requested_via` say who asked for it, and by which way (`api`, `cli`, `web`, `json`, `automation`), if known.
    `first_partition`, `last_partition` and `partitions` say which ones were asked for: two keys, and how many.
    `process_lost` says that it is not over and that the process that drove it died: nobody goes on with it, and
    whoever asks for one of its targets ends it.
    """

    id: str
    kind: str
    selection: str
    executor: str
    state: State
    priority: int
    max_concurrency: int | None
    created_at: datetime
    finished_at: datetime | None = None
    paused: bool = False
    retry_of: str | None = None
    parent: str | None = None
    process_lost: bool = False
    counts: dict[State, int] = field(default_factory=dict)
    details: RunDetails = NO_DETAILS
    assets: tuple[str, ...] = ()
    requested_by: str | None = None
    requested_via: str | None = None
    first_partition: PartitionKey | None = None
    last_partition: PartitionKey | None = None
    partitions: int | None = None

    @property
    def total(self) -> int:
        """Number of steps."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Number of steps that are over."""
        return sum(number for state, number in self.counts.items() if state.is_terminal)


type KnownAssets = Mapping[str, Mapping[str, Any]]
"""The shapes of the assets that a worker knows, as JSON, by name."""


class LeftToOthers:
    """What a worker has drawn and cannot run as it was placed: it draws that no more, so that others get it.

    Whole assets that it does not know; of assets that it declares otherwise, what one run placed; single steps.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._assets: dict[str, float] = {}
        self._runs: dict[str, tuple[str, str, float]] = {}
        self._steps: dict[int, tuple[str, str, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._assets or self._runs or self._steps)

    def add(self, attempt: Attempt, mine: Mapping[str, Any] | None, *, now: float) -> None:
        """Leave a step, and what cannot be run for the same reason.

        Args:
            attempt: of the step.
            mine: the shape of its asset here; None when it is not known here.
            now: seconds of a clock that only goes on.
        """
        until = now + max(0.0, attempt.deps_timeout_seconds - attempt.age_seconds)
        with self._lock:
            if mine is None:
                self._assets.setdefault(attempt.asset, until)
            elif attempt.shape is not None and attempt.shape != mine["digest"]:
                self._runs.setdefault(f"{attempt.run_id} {attempt.asset}", (attempt.asset, attempt.shape, until))
            else:
                self._steps[attempt.step_id] = attempt.asset, mine["partitions"], until

    def forget(self, others: Sequence[KnownAssets], *, now: float) -> None:
        """Draw again what has waited for as long as it may, and what no other worker can run either.

        A worker has to say so in the end.
        """
        with self._lock:
            self._assets = {
                name: until for name, until in self._assets.items() if now < until or can_run(others, name, None)
            }
            self._runs = {
                run: kept for run, kept in self._runs.items() if now < kept[2] or can_run(others, *kept[:2])
            }
            self._steps = {
                step: kept for step, kept in self._steps.items() if now < kept[2] or other_keys(others, *kept[:2])
            }

    def parameters(self) -> dict[str, object]:
        """Return what a statement leaves out."""
        with self._lock:
            return {
                "left": bool(self),
                "left_assets": list(self._assets),
                "left_runs": list(self._runs),
                "left_steps": list(self._steps),
            }


def can_run(others: Sequence[KnownAssets], asset: str, shape: str | None) -> bool:
    """Whether one of these workers knows an asset, in the shape in which a step of it was placed."""
    return any(asset in one and shape in (None, one[asset]["digest"]) for one in others)


def other_keys(others: Sequence[KnownAssets], asset: str, partitions: str) -> bool:
    """Whether one of these workers knows an asset with other keys than these."""
    return any(asset in one and one[asset]["partitions"] != partitions for one in others)


OPEN_OR_THERE = ACTIVE | SUCCESS
"""States of inputs that leave a step its chance."""


def over_before_it_begins(
    new: NewStep, inputs: Sequence[State], target: Callable[[int], Target]
) -> tuple[State, str] | None:
    """Return the state of a step that can never start, and why; None when it can.

    Args:
        new: the step; not one that is served by an earlier version.
        inputs: the states of its inputs.
        target: returns the (asset, encoded partition) at a position of the batch.

    Example:
        >>> step = NewStep("joined", "", inputs=(0, 1), optional=(0,))
        >>> names = [("a", ""), ("b", "")].__getitem__
        >>> over_before_it_begins(step, [State.SKIPPED, State.WAITING], names) is None
        True
        >>> over_before_it_begins(step, [State.WAITING, State.SKIPPED], names)[1]
        'input b ended as skipped'
    """
    if new.skip is not None:
        return State.SKIPPED, new.skip
    if OPEN_OR_THERE.issuperset(inputs):
        return None
    for read, state in zip(new.inputs, inputs, strict=True):
        if state in OPEN_OR_THERE or (state is State.SKIPPED and read in new.optional):
            continue
        reason = f"input {' '.join(target(read)).rstrip()} ended as {state}"
        return State.SKIPPED if state is State.SKIPPED else State.UPSTREAM_FAILED, reason
    skipped = new.all_optional and all(state is State.SKIPPED for state in inputs)
    return (State.SKIPPED, ALL_SKIPPED) if skipped else None
