"""What a store records and answers, and the queue behind it."""

from __future__ import annotations

from asyncio import AbstractEventLoop, run_coroutine_threadsafe
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any, Protocol

from flowstone.core.control import PruneCounts, QueueStatus, StepDiagnosis
from flowstone.core.output import StoredOutput
from flowstone.core.queueing import FetchedJob, KnownAssets, LeftToOthers
from flowstone.core.ranges import NewRange, UnstartedTarget
from flowstone.core.run_details import RunDetails
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
from flowstone.protocols.approvals import ApprovalStore
from flowstone.protocols.automation import AutomationStore, TargetStatuses
from flowstone.protocols.checks import CheckStore
from flowstone.protocols.partition_keys import PartitionKeys
from flowstone.protocols.scattering import ScatterStore


class Ledger(Protocol):
    """The writing side of a store: runs, steps and attempts, and the transactions that move them.

    Every method is one transaction: all of it or none.
    """

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        """Record a run and place its steps; a target that is already under way is joined.

        Raises:
            RunConflictError: a target is under way with another config than a step that needs its own.
        """

    def claim(self, step_ids: Sequence[int], *, now: datetime) -> list[Claim]:
        """Start an attempt of each step that may start now; steps that may not are left out."""

    def commit(self, completions: Sequence[Completion]) -> list[Committed]:
        """End attempts: publish successes, move pointers, record lineage, release or fail what follows."""

    def release(self, claims: Sequence[Claim], *, delay_seconds: float = 0.0, reason: str = "") -> list[int]:
        """Give attempts back as if they had not started; return the steps that were still ours."""

    def request_cancel(self, step_id: int) -> State:
        """Record that a step is to be cancelled and return its state now."""

    def invalidate(self, targets: Sequence[Target]) -> int:
        """Take committed versions out of use; return how many there were. Their records stay."""

    def cancel_run(self, run_id: str) -> list[int]:
        """Cancel every step of a run that is not over; return those that were running."""


class Catalog(Protocol):
    """The reading side of a store: what is committed, what happened."""

    def current(self, targets: Sequence[Target]) -> dict[Target, int]:
        """Return the committed step of each target that has one."""

    def config_hashes(self, step_ids: Sequence[int]) -> dict[int, str | None]:
        """Return how the run of each step was to compute it; see `RunDetails.config_hash`."""

    def run_details(self, run_id: str) -> RunDetails:
        """Return what a run is about, with its secrets: for repeating it, never for showing."""

    def started(self, targets: Sequence[Target]) -> dict[Target, datetime]:
        """Return for each target that has a committed step when computing it started, as far as that is known."""

    def resolve(self, requested: Sequence[tuple[str, str, str]]) -> list[CommittedOutput | None]:
        """Return the version to read for each (run, asset, partition): the run's own result wins."""

    def skipped(self, requested: Sequence[tuple[str, str, str]]) -> set[int]:
        """Return the positions of those (run, asset, partition) that were skipped: in the run, else latest."""

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

    def runs(self, *, limit: int = 50, parent: str | None = None, tag: str | None = None) -> list[RunRecord]:
        """Return the newest runs; with `parent`, those of the items that its steps scattered; or with a tag."""

    def wait(self, step_ids: Sequence[int], *, run_id: str | None = None, timeout_seconds: float) -> bool:
        """Wait until all these steps (or the run) are over; return whether they are."""


class DurableQueue(Protocol):
    """What worker nodes ask of a store whose transactions place work on a queue."""

    def fetch(
        self,
        queue: str,
        *,
        demand: int,
        worker_id: str,
        attempted_by: Sequence[str],
        left: LeftToOthers | None = None,
    ) -> list[FetchedJob]:
        """Take jobs and start the attempts of their steps, in one transaction; without what is left to others."""

    def known_assets(self, *, but: str) -> list[KnownAssets]:
        """Return what each living worker knows, but one."""

    def cancelling(self, worker_id: str) -> list[int]:
        """Return the steps of a worker that are to be stopped."""

    def held(self, worker_id: str) -> list[Claim]:
        """Return the attempts that a worker holds, by the tables."""

    def node_limits(self) -> dict[str, int]:
        """Return the queues whose number of steps at once per node was changed at run time."""

    def nudge(self, queues: Sequence[str]) -> None:
        """Notify the nodes of those of these queues on which large backfills have something to start."""

    def stage(self, queues: Sequence[str]) -> list[str]:
        """Make jobs available that are due; return those of these queues that have work."""

    def follow_cancels(self, signalled: Sequence[int]) -> int:
        """Cancel the steps of jobs that were cancelled with the queue's own tools; return how many.

        Args:
            signalled: running jobs that a signal names.
        """

    def prune_jobs(self, older_than_seconds: float) -> int:
        """Delete jobs that ended so long ago; return how many. Records of steps and runs stay."""

    def rescue(self) -> int:
        """End the attempts of workers whose lease ran out, and place them again; return how many."""

    def sweep(self) -> int:
        """Repair what a lost notification, row or process left behind; return how much."""


class RangeStore(Protocol):
    """Keeps what large backfills have not started as ranges of partitions."""

    def open_run(self, run: NewRun, new: NewRange) -> int:
        """Record a run over many partitions of one asset; return how many, 0 when the run is known already.

        Steps are made as workers begin them. What `new.partitions` raises leaves nothing behind.
        """

    def waiting(self, target: Target) -> UnstartedTarget | None:
        """Return where a target waits for a worker to begin it."""


class Control(Protocol):
    """What people do to running work, on a store whose transactions place work on a queue."""

    def pause_run(self, run_id: str) -> int:
        """Start nothing more of a run; return how many placed steps were taken back."""

    def resume_run(self, run_id: str) -> int:
        """Go on with a paused run; return how many steps were placed."""

    def set_queue(
        self,
        name: str,
        *,
        paused: bool | None = None,
        node_limit: int | None = None,
        reset_limit: bool = False,
    ) -> None:
        """Pause, resume or resize a queue in the whole fleet; None leaves a setting as it is.

        With `reset_limit` each worker runs as many steps at once again as it declares.
        """

    def queues(self) -> list[QueueStatus]:
        """Return the queues that are set or have work."""

    def served_queues(self) -> list[str]:
        """Return the queues that living workers serve."""

    def diagnosis(self, target: Target) -> StepDiagnosis | None:
        """Return what is known of the newest step of a target."""


class Retention(Protocol):
    """Forgets what ended long ago and nothing needs."""

    def prune(
        self, *, older_than_seconds: float, discard: Callable[[Sequence[StoredOutput]], None]
    ) -> PruneCounts:
        """Delete what ended long ago and nothing needs; return what that was."""

    def needed_versions(self, versions: Sequence[str]) -> set[str]:
        """Return which of these versions of values are committed, may still be, or are of steps unknown here."""

    def prunable(self, *, older_than_seconds: float) -> PruneCounts:
        """Return what `prune` would delete, without deleting it."""

    def recorded_of(self, asset: str) -> tuple[PruneCounts, int]:
        """Return what is recorded of an asset, and how many steps of it are not over."""

    def prune_asset(self, asset: str, *, discard: Callable[[Sequence[StoredOutput]], None]) -> PruneCounts:
        """Delete everything that is recorded of an asset, its current versions included; return what that was."""


class CallerLoop:
    """The event loop of whoever awaits a verb in another thread, and whether that one has given up.

    Args:
        loop: the loop.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.given_up = False
        self._at_work: Future[Any] | None = None

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, from the thread that does the work, and return what comes of it.

        Raises:
            CancelledError: the caller has given up.
        """
        self._at_work = at_work = run_coroutine_threadsafe(work, self.loop)
        if self.given_up:
            at_work.cancel()
        return at_work.result()

    def give_up(self) -> None:
        """Begin nothing more, and stop what is at work."""
        self.given_up = True
        if self._at_work is not None:
            self._at_work.cancel()


class OpensRuns(Protocol):
    """Where runs are recorded: a ledger, or a transaction of the caller's."""

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        """See `Ledger.open_run`."""

    def open_range(self, run: NewRun, new: NewRange) -> int:
        """See `RangeStore.open_run`."""


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
    def queue_problem(self) -> str | None:
        """Why they cannot, when the store could have a queue."""

    @property
    def control(self) -> Control | None:
        """What people may do to running work; None when work here cannot outlive a call."""

    @property
    def retention(self) -> Retention:
        """Forgets what nothing needs."""

    @property
    def ranges(self) -> RangeStore | None:
        """Keeps large backfills as ranges; None when every step is a row from the start."""

    @property
    def ledger(self) -> Ledger:
        """The writing side."""

    @property
    def catalog(self) -> Catalog:
        """The reading side."""

    @property
    def target_statuses(self) -> TargetStatuses:
        """How many targets stand at once."""

    @property
    def approvals(self) -> ApprovalStore:
        """What waits, or waited, for a person's decision."""

    @property
    def checks(self) -> CheckStore:
        """What checks found."""

    @property
    def scatters(self) -> ScatterStore:
        """The items that steps discover when they run."""

    @property
    def automations(self) -> AutomationStore:
        """What runs by itself."""

    @property
    def partition_keys(self) -> PartitionKeys:
        """The keys of dynamic partitions."""

    def end_lost(self, step_ids: Sequence[int]) -> bool:
        """End what lost processes held, if one of these steps is among it; return whether that was so.

        Whoever needs a step asks now and then, so that nothing depends on a worker that polls.
        """

    def within(self, connection: object, caller: CallerLoop | None) -> OpensRuns:
        """Return what records runs inside the transaction that is open on a connection of the caller's.

        Args:
            connection: a connection of a driver, or of a toolkit around it.
            caller: the loop on which the caller waits, for connections whose methods are awaited.

        Raises:
            OptionsError: runs cannot be recorded there; says why.
        """

    def close(self) -> None:
        """Release connections; closing twice is fine."""
