"""What a store records and answers, and the queue behind it.

`Ledger` writes (open, claim, commit) and `Catalog` reads; the smaller protocols are one subject each: approvals,
checks, keys of dynamic partitions, scatters, ranges. `DurableQueue` is what worker nodes need besides. Two stores
have all of it: memory and PostgreSQL; one suite of tests holds both to the same meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.audit import AuditFilter, AuditRecord
from flowstone.core.control import PruneCounts, QueueStatus, StepDiagnosis
from flowstone.core.logs import LogBatch, LogCount, LogPosition, Trim, WrittenBatch
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import KeyChange, KeyState, PartitionKey
from flowstone.core.run_details import RunDetails
from flowstone.core.run_filter import RunFilter
from flowstone.core.scatter import ItemCounts, ItemRow, NewItem, NewScatter, OpenScatter, ScatterRecord
from flowstone.core.state import State
from flowstone.core.step import (
    Attempt,
    AttemptRecord,
    AttemptResult,
    CheckRecord,
    CommitResult,
    CommittedOutput,
    InputVersion,
    KnownAssets,
    LeftToOthers,
    NewRange,
    NewRun,
    NewStep,
    PlacedStep,
    RunRecord,
    StepRecord,
    Target,
    UnstartedTarget,
)
from flowstone.protocols.automation import AutomationStore, TargetStatuses
from flowstone.protocols.insights import Insights
from flowstone.protocols.outbox import AttemptFeed, NotificationStore
from flowstone.protocols.values import PublicationStore, Publisher
from flowstone.protocols.versions import VersionStore

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class ApprovalStore(Protocol):
    """Keeps requests for approval and decides them; every method is one transaction.

    The transaction that ends the attempt of a suspended step records the request (`Ledger.commit`), the one that
    cancels the step cancels it. A decision and what follows from it, such as placing the step again or failing
    everything downstream, are one transaction as well. The store's clock decides what is late.
    """

    def list(self, *, state: ApprovalState | None = None, limit: int = 100) -> Sequence[Approval]:
        """Return requests of one state or all; pending ones by the end of their time, else newest first."""

    def get(self, approval_id: int) -> Approval | None:
        """Return a request."""

    def of_step(self, step_id: int) -> Sequence[Approval]:
        """Return the requests of a step in the order in which they were made."""

    def decide(self, approval_id: int, *, approve: bool, by: str, comment: str | None = None) -> Approval:
        """Decide a request; the first decision wins.

        Args:
            approval_id: the request.
            approve: whether the step goes on; otherwise it fails for good.
            by: who decides.
            comment: what they say about it.

        Raises:
            ApprovalNotFoundError: there is no such request.
            ApprovalDecidedError: it was decided, cancelled, or its time was over; says who and when.
        """

    def expire_due(self, *, limit: int = 1000) -> int:
        """End the requests whose time is over as their `on_timeout` says; return how many."""

    def claim_notifications(self, *, lease_seconds: float, limit: int = 10) -> Sequence[Approval]:
        """Claim requests whose state is not announced yet; until the lease is over nobody else gets them.

        Of two changes in a row only the later one is announced. A decision is announced for a day, a pending
        request as long as it is pending.
        """

    def acknowledge_notification(self, approval: Approval) -> None:
        """Acknowledge that this state of a request was announced."""

    def release_notification(self, approval: Approval, *, retry_in_seconds: float) -> None:
        """Release a state of a request that could not be announced, and say when to try again."""


class AuditStore(Protocol):
    """The audit log, which only grows.

    Every action of a person or a program writes its line in its own transaction, in the store that does it, and
    names who acts (`flowstone.core.actor`): see `flowstone.stores.postgres.audit.note`.
    """

    def note(self, action: str, subject: str, details: Mapping[str, object] | None = None) -> None:
        """Write a line about something that changes nothing in the store, such as a login."""

    def lines(
        self, requested: AuditFilter | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[AuditRecord]:
        """Return the newest lines that match, newest first.

        Args:
            requested: which; None for all.
            before: only those before this position in the log: `id` of the last line of the page before.
            limit: how many at most.
        """


class CheckStore(Protocol):
    """Keeps the results of checks.

    Those of an attempt come with its `AttemptResult` and are recorded in the transaction that ends it, if that
    attempt is still the newest one of its step.
    """

    def record(self, records: Sequence[CheckRecord]) -> int:
        """Record what checks of committed versions found; return how many of the steps were still known."""

    def results(
        self,
        asset: str,
        *,
        partition: PartitionKey | None = None,
        check: str | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[CheckRecord]:
        """Return the results of an asset's checks, newest first.

        Args:
            asset: whose.
            partition: only of this encoded partition.
            check: only of the check of this name.
            failed: only those that did not pass.
            limit: how many at most.
        """

    def latest(
        self,
        asset: str | None = None,
        *,
        partition: PartitionKey | None = None,
        failed: bool = False,
        limit: int = 1000,
    ) -> list[CheckRecord]:
        """Return the newest result of each check of each partition, ordered by asset, partition and check.

        Args:
            asset: whose; None for all.
            partition: only of this encoded partition.
            failed: only checks whose newest result is a failure.
            limit: how many at most.
        """

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, tuple[CheckRecord, ...]]:
        """Return the newest result of each check of each step, in the order in which they first ran."""


class PartitionKeys(Protocol):
    """The keys of dynamic partitions definitions, by name, with their history; every method is one transaction.

    Keys are encoded. Changes of one definition happen one after the other and are numbered without gaps; a
    definition exists with its first key. A key is there once: of simultaneous additions one is the new one.
    """

    def keys(self, name: str) -> list[str]:
        """Return the keys of a definition in the order of their addition."""

    def changed(self, name: str, *, after: int = 0) -> list[KeyState]:
        """Return every key that was added or removed since a revision, as it stands now, in order of revision."""

    def add(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        """Add keys in this order and return those that were not there."""

    def remove(
        self, name: str, keys: Sequence[str], *, by: str | None = None, reason: str | None = None
    ) -> list[str]:
        """Remove keys and return those that were there."""

    def history(self, name: str, key: str | None = None, *, limit: int = 100) -> list[KeyChange]:
        """Return the newest changes of a definition, or of one of its keys, newest first."""


class ScatterStore(Protocol):
    """Keeps the items that steps discover, as steps of runs of their own; every method is one transaction.

    The attempt that discovers ends with the outcome `Scattered` (`Ledger.commit`): its step then rests in the
    state `waiting`, and the transaction in which the last of its items ends lets it go on. The transaction that
    brings the failures beyond what is allowed cancels the other items; so does the one in which the step ends
    without them.
    """

    def begin(self, step_id: int, token: int, new: NewScatter) -> OpenScatter | None:
        """Begin the items of a step, or go on with those of an earlier attempt.

        Args:
            step_id: the step.
            token: fencing token of the attempt.
            new: what the items are to be like.

        Returns:
            The right to add items; None when the attempt was superseded or cancelled.
        """

    def add(self, scatter: OpenScatter, items: Sequence[NewItem]) -> bool | None:
        """Add items; those that an earlier attempt added are found again, not doubled.

        Args:
            scatter: the right to do so.
            items: the next ones in the order of discovery.

        Returns:
            Whether to go on: False when too many failed already. None when the attempt was superseded or
            cancelled; nothing was added then.

        Raises:
            LookupError: an item has the key of one that this attempt added before; its position is the argument.
        """

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, ScatterRecord]:
        """Return the scatters that some steps have begun."""

    def of_run(self, run_id: str) -> ScatterRecord | None:
        """Return the scatter of a run of items."""

    def items(self, step_ids: Sequence[int]) -> dict[int, str]:
        """Return the items of some item steps, as text."""

    def page(self, run_id: str, *, after: int, limit: int, states: Collection[State]) -> list[ItemRow]:
        """Return items in some states in the order of discovery, those behind the position `after`."""

    def counts(self, run_id: str) -> ItemCounts:
        """Return how many items are in each state."""


class Ledger(Protocol):
    """The writing side of a store: runs, steps and attempts, and the transactions that move them.

    Every method is one transaction: all of it or none.
    """

    def open_run(self, run: NewRun, steps: Sequence[NewStep]) -> list[PlacedStep]:
        """Record a run and place its steps; a target that is already under way is joined.

        Raises:
            RunConflictError: a target is under way with another config than a step that needs its own.
        """

    def claim(self, step_ids: Sequence[int], now: datetime) -> list[Attempt]:
        """Start an attempt of each step that may start now; steps that may not are left out."""

    def commit(self, completions: Sequence[AttemptResult]) -> list[CommitResult]:
        """End attempts: publish successes, move pointers, record lineage, release or fail what follows."""

    def release(self, attempts: Sequence[Attempt], *, delay_seconds: float = 0.0, reason: str = "") -> list[int]:
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

    def resolve(self, requested: Sequence[tuple[str, str, PartitionKey]]) -> list[CommittedOutput | None]:
        """Return the version to read for each (run, asset, partition): the run's own result wins."""

    def skipped(self, requested: Sequence[tuple[str, str, PartitionKey]]) -> set[int]:
        """Return the positions of those (run, asset, partition) that were skipped: in the run, else latest."""

    def step(self, step_id: int) -> StepRecord | None:
        """Return a step."""

    def steps(self, run_id: str, *, state: State | None = None, limit: int = 1000) -> list[StepRecord]:
        """Return steps of a run in the order of their planning."""

    def history(
        self, asset: str, partition: PartitionKey | None, *, state: State | None = None, limit: int = 100
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
    ) -> list[Attempt]:
        """Take jobs and start the attempts of their steps, in one transaction; without what is left to others."""

    def has_open_runs(self, queue: str) -> bool:
        """Return whether the last fetch saw runs that have something to begin on a queue without jobs."""

    def known_assets(self, *, but: str) -> list[KnownAssets]:
        """Return what each living worker knows, but one."""

    def cancelling(self, worker_id: str) -> list[int]:
        """Return the steps of a worker that are to be stopped."""

    def held(self, worker_id: str) -> list[Attempt]:
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


class BulkActions(Protocol):
    """What people do to many runs at once; each call is written into the audit log once."""

    def matching(self, requested: RunFilter, now: datetime, *, limit: int) -> list[str]:
        """Return the ids of runs that match, the oldest first."""

    def cancel_runs(self, run_ids: Sequence[str], details: Mapping[str, object]) -> list[int]:
        """Cancel every step of runs that is not over; return those that were running."""

    def cancel_steps(self, run_id: str, step_ids: Sequence[int], details: Mapping[str, object]) -> list[int]:
        """Cancel steps of a run; return those that were running."""

    def set_priority(self, run_ids: Sequence[str], priority: int, details: Mapping[str, object]) -> int:
        """Give runs, and what of them is not over, another priority; return how many of them were not over."""

    def set_window(self, run_id: str, window: int) -> bool:
        """Change how many steps of a run may be placed at once; False when it is over or has no window."""


class Retention(Protocol):
    """Forgets what ended long ago and nothing needs."""

    def prune(
        self, *, older_than_seconds: float, discard: Callable[[Sequence[StoredOutput]], None]
    ) -> PruneCounts:
        """Delete what ended long ago and nothing needs; return what that was."""

    def needed_versions(self, versions: Sequence[str]) -> set[str]:
        """Return which of these versions of values are committed, may still be, or are of steps unknown here.

        Args:
            versions: names of versions, with the token of their attempt where the storage knows it.
        """

    def prunable(self, *, older_than_seconds: float) -> PruneCounts:
        """Return what `prune` would delete, without deleting it."""

    def recorded_of(self, asset: str) -> tuple[PruneCounts, int]:
        """Return what is recorded of an asset, and how many steps of it are not over."""

    def prune_asset(self, asset: str, *, discard: Callable[[Sequence[StoredOutput]], None]) -> PruneCounts:
        """Delete everything that is recorded of an asset, its current versions included; return what that was."""


class LogStore(Protocol):
    """Keeps what attempts log, in batches; nothing else of a store waits for it or depends on it."""

    def append(self, batches: Sequence[LogBatch], trims: Sequence[Trim]) -> None:
        """Add batches, those that are there already apart, and delete what attempts no longer keep."""

    def read(
        self,
        step_id: int,
        attempt: int,
        *,
        after: tuple[int, int] = (0, 0),
        newest: bool = False,
        limit: int = 1000,
    ) -> list[LogBatch]:
        """Return batches of an attempt in the order of its lines.

        Args:
            step_id: the step.
            attempt: number of the attempt.
            after: fencing token and number of a line; only batches with lines behind it.
            newest: when there are more than `limit`, whether the last ones are returned, not the first ones.
            limit: how many batches at most.
        """

    def of_run(
        self, run_id: str, *, after: LogPosition | None = None, newest: bool = False, limit: int = 1000
    ) -> list[WrittenBatch]:
        """Return batches of a run in the order in which they were written, those behind a position.

        Args:
            run_id: the run.
            after: only batches behind this place.
            newest: when there are more than `limit`, whether the last ones are returned, not the first ones.
            limit: how many batches at most.
        """

    def counts(self, step_ids: Sequence[int]) -> list[LogCount]:
        """Return how much the attempts of some steps logged, those that logged nothing apart."""

    def forget(self, step_ids: Sequence[int]) -> int:
        """Delete what some steps logged; return how many batches that was."""

    def prune(self, *, older_than_seconds: float, limit: int = 10_000) -> int:
        """Delete batches that were written so long ago, at most so many; return how many."""


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
        # here, so that processes of isolated functions start without asyncio, an eighth of what they would import
        from asyncio import run_coroutine_threadsafe

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
        """Place a run, as `Ledger.open_run` does."""

    def open_range(self, run: NewRun, new: NewRange) -> int:
        """Place a large backfill, as `RangeStore.open_run` does."""


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
    def bulk(self) -> BulkActions:
        """What people do to many runs at once."""

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
    def audit(self) -> AuditStore:
        """Who did what."""

    @property
    def versions(self) -> VersionStore:
        """Which versions there are, and which is in use."""

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

    @property
    def publications(self) -> PublicationStore:
        """What is committed and not yet visible where others read it."""

    def publish_with(self, publisher: Publisher) -> None:
        """Have changes of what is in use published, from now on."""

    @property
    def logs(self) -> LogStore:
        """What attempts logged."""

    @property
    def feed(self) -> AttemptFeed | None:
        """Notes attempts that are over; None where nothing outlives the process that hears of them."""

    @property
    def notifications(self) -> NotificationStore:
        """What people are notified of."""

    @property
    def insights(self) -> Insights:
        """What people who watch ask."""

    def reading(self) -> ReadingStore:
        """Return the same data through connections of their own that cannot write."""

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


class ReadingStore(Store, Protocol):
    """A store that only reads: what would write is refused. The one in memory is the store itself."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Answer every question of this thread that is asked meanwhile from one state of the data.

        A question that takes too long raises `QuestionTooSlowError`; those after it are answered from a newer
        state.
        """
