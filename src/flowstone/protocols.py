"""Every seam of FlowStone: what an executor, an IO manager, a store, a hook, a resource must offer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, BinaryIO, Protocol, runtime_checkable

from flowstone.core.capability import Capability
from flowstone.core.context import AssetContext
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.outcome import AttemptOutcome
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.queueing import FetchedJob
from flowstone.core.state import State
from flowstone.core.step import (
    AttemptRecord,
    Claim,
    Committed,
    CommittedOutput,
    Completion,
    InputVersion,
    NewRun,
    NewStep,
    PlacedStep,
    RunRecord,
    StepRecord,
    Target,
)

type StepCall = Callable[[AssetContext], AttemptOutcome]
"""The rest of the onion around a step."""

# --- values -------------------------------------------------------------------------------------------------


@runtime_checkable
class IOManager(Protocol):
    """Stores the values of assets and loads them again.

    A value is written under an address of its own attempt and becomes visible only when the success of that
    attempt commits; so `store` may be interrupted at any point without harm. Implementations must be safe
    to call from several threads at once.
    """

    @property
    def name(self) -> str:
        """Name under which the app knows this manager; recorded with every output."""

    @property
    def shared(self) -> bool:
        """Whether other processes can load what this one stored."""

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Store `value` for one attempt and describe where it lies."""

    def load(self, stored: StoredOutput) -> object:
        """Return the value that `store` described."""

    def discard(self, stored: StoredOutput) -> None:
        """Delete a version that is no longer wanted; deleting what is gone is not an error."""


type KeepVersions = Callable[[Sequence[str]], Collection[str]]
"""Told names of versions, returns those that are committed or may still be."""


@runtime_checkable
class SweepableIO(Protocol):
    """An IO manager that can find what attempts left behind that died between storing and committing."""

    def sweep(self, *, older_than_seconds: float, keep: KeepVersions | None = None) -> int:
        """Delete leftovers and return how many.

        Args:
            older_than_seconds: spare what was written more recently, where the manager knows when that was.
            keep: names the versions to spare among those found; None deletes only what can never be wanted.
        """


@runtime_checkable
class Serializer(Protocol):
    """Turns values into bytes and back, streaming through binary files."""

    @property
    def name(self) -> str:
        """Name recorded with every value that it wrote."""

    @property
    def extension(self) -> str:
        """File name ending: a dot and small letters or digits."""

    def accepts(self, value: object) -> bool:
        """Whether this is a natural format for the value (used to choose automatically)."""

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the value front to back (the file cannot be sought).

        Raises:
            SerializationError: the value cannot be represented exactly.
        """

    def read(self, file: BinaryIO) -> object:
        """Read back what `write` wrote; the file can be sought and its content was verified."""


# --- around a step ------------------------------------------------------------------------------------------


@runtime_checkable
class Hook(Protocol):
    """A skin of the onion around every step.

    `call` does what it likes before and after `step(context)`, which runs the rest: inner hooks, loading the
    inputs, the function, storing. It returns the outcome, or another one.
    """

    def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
        """Run the rest of the onion."""


type ResourceFactory = Callable[[], object | AbstractContextManager[object]]
"""Makes a resource on first use; a context manager is entered then and left on shutdown."""

# --- executors ----------------------------------------------------------------------------------------------


class RunJob(Protocol):
    """What the app hands an executor: it runs one job to its end, here and now."""

    def __call__(
        self, job: Job, *, timeout_seconds: float | None = None, stoppable: bool = False
    ) -> Materialization:
        """Run a job and return its result, or raise its error.

        Args:
            job: the job.
            timeout_seconds: limit for assets that declare none.
            stoppable: whether a function that runs out of time must really be stopped (takes a process).
        """


@runtime_checkable
class Executor(Protocol):
    """Decides where and when a job runs; what running means is handed to it as `run`.

    The app calls `bind(run)` once before anything else. `capabilities` declares which of the optional
    methods (`status`, `cancel`) and properties hold; see `flowstone.core.capability`.
    """

    @property
    def name(self) -> str:
        """Name recorded with every job that it holds."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this executor offers beyond `execute` and `schedule`."""

    def bind(self, run: RunJob) -> None:
        """Receive the callable that runs a job."""

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job and wait for its end; raise the asset's error."""

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job and return at once, without waiting for it to run (see each executor)."""


@runtime_checkable
class ChecksOptions(Protocol):
    """An executor that can look at per-call options before anything is placed."""

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options with which `execute` or `schedule` could not work.

        Raises:
            OptionsError: naming the option.
        """


# --- stores -------------------------------------------------------------------------------------------------


class Ledger(Protocol):
    """The writing side of a store: runs, steps and attempts, and the transactions that move them.

    Every method is one transaction: all of it or none.
    """

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        """Record a run and place its steps; a target that is already under way is joined."""

    def claim(self, step_ids: Sequence[int], *, now: datetime) -> list[Claim]:
        """Start an attempt of each step that may start now; steps that may not are left out."""

    def commit(self, completions: Sequence[Completion]) -> list[Committed]:
        """End attempts: publish successes, move pointers, record lineage, release or fail what follows."""

    def hand_back(self, claims: Sequence[Claim], *, delay_seconds: float = 0.0, reason: str = "") -> list[int]:
        """Give attempts back as if they had not started; return the steps that were still ours."""

    def request_cancel(self, step_id: int) -> State:
        """Record that a step is to be cancelled and return its state now."""

    def cancel_run(self, run_id: str) -> list[int]:
        """Cancel every step of a run that is not over; return those that were running."""


class Catalog(Protocol):
    """The reading side of a store: what is committed, what happened."""

    def current(self, targets: Sequence[Target]) -> dict[Target, int]:
        """Return the committed step of each target that has one."""

    def resolve(self, wanted: Sequence[tuple[str, str, str]]) -> list[CommittedOutput | None]:
        """Return the version to read for each (run, asset, partition): the run's own result wins."""

    def step(self, step_id: int) -> StepRecord | None:
        """Return a step."""

    def steps(self, run_id: str, *, state: State | None = None, limit: int = 1000) -> list[StepRecord]:
        """Return steps of a run in the order of their planning."""

    def history(
        self, asset: str, partition: str | None, *, state: State | None = None, limit: int = 100
    ) -> list[StepRecord]:
        """Return the steps of an asset (or one of its partitions), newest first."""

    def attempts(self, step_id: int) -> list[AttemptRecord]:
        """Return the attempts of a step that are over, in order."""

    def inputs(self, step_ids: Sequence[int]) -> dict[int, tuple[InputVersion, ...]]:
        """Return what each step read."""

    def readers(self, step_ids: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """Return which committed steps read each step."""

    def run(self, run_id: str) -> RunRecord | None:
        """Return a run with its counts."""

    def runs(self, *, limit: int = 50) -> list[RunRecord]:
        """Return the newest runs."""

    def wait(self, step_ids: Sequence[int], *, run_id: str | None = None, timeout_seconds: float) -> bool:
        """Wait until all these steps (or the run) are over; return whether they are."""


class DurableQueue(Protocol):
    """What worker nodes ask of a store whose transactions place work on a queue."""

    def fetch(
        self, queue: str, *, demand: int, worker_id: str, attempted_by: Sequence[str]
    ) -> list[FetchedJob]:
        """Take jobs and start the attempts of their steps, in one transaction."""

    def cancelling(self, worker_id: str) -> list[int]:
        """Return the steps of a worker that somebody wants stopped."""

    def rescue(self) -> int:
        """End the attempts of workers whose lease ran out, and place them again; return how many."""

    def sweep(self) -> int:
        """Repair what a lost notification, row or process left behind; return how much."""


class Store(Protocol):
    """A ledger and its catalog over the same data."""

    @property
    def name(self) -> str:
        """What kind of store this is, such as `memory`."""

    @property
    def shared(self) -> bool:
        """Whether other processes see the same data."""

    @property
    def durable(self) -> bool:
        """Whether its transactions can place work on a queue."""

    @property
    def ledger(self) -> Ledger:
        """The writing side."""

    @property
    def catalog(self) -> Catalog:
        """The reading side."""

    def close(self) -> None:
        """Release connections; closing twice is fine."""


type ResourceFactories = Mapping[str, ResourceFactory | object]
