"""Steps as the stores know them: what is planned, claimed, committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from flowstone.core.approval import Approval
from flowstone.core.check_record import CheckRecord
from flowstone.core.outcome import AttemptOutcome
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.run_details import NO_DETAILS, RunDetails, RunInfo
from flowstone.core.state import State

type Target = tuple[str, str]
"""An (asset name, encoded partition) pair."""


@dataclass(slots=True)
class NewStep:
    """A step to be placed.

    Args:
        asset: asset name.
        partition: encoded partition.
        inputs: positions, in the same batch, of the steps whose results it reads.
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
    partition: str
    inputs: tuple[int, ...] = ()
    reuse: int | None = None
    queue: str = "assets"
    priority: int = 4
    max_attempts: int = 1
    scheduled_at: datetime | None = None
    forced: bool = False
    code_version: str | None = None
    limits: Mapping[str, int | str] | None = None
    optional: tuple[int, ...] = ()
    all_optional: bool = False
    skip: str | None = None
    config_hash: str | None = None
    same_config: bool = False
    tags: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class NewRun:
    """A run to be opened with its steps.

    Args:
        id: run id, unique.
        kind: the verb that asked for it.
        selection: what was asked for, for people.
        executor: name of the executor that places its steps.
        durable: whether committing transactions place what they release (else the caller drives).
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
        shapes: digests of the shapes of its assets, by name; see `flowstone.core.shape`.
        keys: digests of the partitions of those assets whose steps are of partitions that were checked, by name.
    """

    id: str
    kind: str
    selection: str
    executor: str
    created_at: datetime
    durable: bool = False
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


class PlacedStep(NamedTuple):
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


@dataclass(slots=True)
class Claim:
    """The right to run one attempt of a step.

    Args:
        step_id: the step.
        run_id: its run.
        asset: asset name.
        partition: encoded partition.
        attempt: number of this attempt, from 1.
        max_attempts: attempts in all.
        token: fencing token; only the newest one of a step can commit.
        started_at: start of the attempt.
        forced: whether the target is recomputed although a success exists.
        approvals: what people decided at the gates of this step, in order.
        run: what its run is about; None when nobody said.
        queued_seconds: how long it was due before a worker took it; None when nobody measured that.
    """

    step_id: int
    run_id: str
    asset: str
    partition: str
    attempt: int
    max_attempts: int
    token: int
    started_at: datetime
    forced: bool = False
    approvals: tuple[Approval, ...] = ()
    run: RunInfo | None = None
    queued_seconds: float | None = None


class InputVersion(NamedTuple):
    """One exact input of an attempt: which committed step was read.

    Args:
        parameter: the parameter it was passed to, or the asset's name.
        asset: upstream asset.
        partition: its encoded partition.
        step_id: the upstream step whose output was read.
    """

    parameter: str
    asset: str
    partition: str
    step_id: int


@dataclass(slots=True)
class Completion:
    """The end of one attempt, to be committed.

    Args:
        claim: the attempt.
        outcome: what came of it.
        inputs: what it read.
        finished_at: when it ended.
        retry_in_seconds: delay until the next attempt; None for no further attempt.
        checks: results of the checks that looked at its value.

    `is_recordable` says that `flowstone.core.fit` has looked at it; a changed copy (`replace`) is looked at again.
        ran: whether the asset's code was asked, or would have been: then `code_version` is recorded.
        code_version: the version that this code declares of itself.
    """

    claim: Claim
    outcome: AttemptOutcome
    inputs: tuple[InputVersion, ...]
    finished_at: datetime
    retry_in_seconds: float | None = None
    checks: tuple[CheckRecord, ...] = ()
    ran: bool = False
    code_version: str | None = None
    is_recordable: bool = field(default=False, init=False, compare=False, repr=False)


class Committed(NamedTuple):
    """What the store made of a completion.

    Args:
        step_id: the step.
        state: its state now.
        accepted: False when the attempt had been superseded; nothing of it was published then.
        released: steps that may start now because this was their last input, when the caller drives the run.
    """

    step_id: int
    state: State
    accepted: bool
    released: tuple[int, ...] = ()


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
    """One attempt of a step, over."""

    attempt: int
    state: State
    started_at: datetime
    finished_at: datetime
    worker: str | None = None
    error: str | None = None
    error_type: str | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Everything that is recorded of a step.

    `output_step` names the step whose output serves: its own id, or for a reused step the earlier one.
    """

    id: int
    run_id: str
    asset: str
    partition: str
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


def run_state(state: State, counts: Mapping[State, int]) -> State:
    """Return the state of a run for people: `cancelling` while all that is left of it is being cancelled.

    Example:
        >>> run_state(State.RUNNING, {State.CANCELLING: 1, State.CANCELLED: 5}).value
        'cancelling'
    """
    left = {one for one, number in counts.items() if number and not one.is_terminal}
    return State.CANCELLING if state is State.RUNNING and left == {State.CANCELLING} else state


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run with the number of its steps in each state.

    `details` says what it is about, without secrets; `assets` names what was asked for.
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

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the run."""
        return self.details.tags

    @property
    def metadata(self) -> Mapping[str, JsonValue]:
        """Facts about the run that were given with the request."""
        return self.details.metadata

    @property
    def config(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """Config of each asset of the run that takes one."""
        return self.details.config

    @property
    def total(self) -> int:
        """Number of steps."""
        return sum(self.counts.values())

    @property
    def done(self) -> int:
        """Number of steps that are over."""
        return sum(number for state, number in self.counts.items() if state.is_terminal)
