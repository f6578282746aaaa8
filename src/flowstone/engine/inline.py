"""Running jobs to their end in this process: claim, perform, commit, and again when a step asks for that.

`InlineRunner` is the `run(job)` that executors of this process are given; `ItemDriver` runs the items of a scatter
while its step rests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from flowstone import telemetry
from flowstone.core.context import CancellationToken
from flowstone.core.forks import renew_after_fork
from flowstone.core.graph import AssetGraph
from flowstone.core.job import Job
from flowstone.core.limits import Limit
from flowstone.core.materialization import Materialization
from flowstone.core.outcome import STORED_REMOTELY, Failed, Snoozed, Succeeded
from flowstone.core.partitions import decode_partition
from flowstone.core.retry import RetryPolicy
from flowstone.core.scatter import Scatter
from flowstone.core.state import TERMINAL, State
from flowstone.core.step import Attempt, AttemptResult, CommitResult, StepRecord
from flowstone.engine.driver import StepThreads
from flowstone.engine.failures import failure, user_traceback
from flowstone.engine.runner import StepRunner
from flowstone.engine.step_log import log_committed
from flowstone.engine.values import InputReader, ResolvedInputs, waits_for
from flowstone.errors import DatabaseUnavailableError, RunNotFoundError, StaleAttemptError
from flowstone.protocols import Store

_PAGE = 500


class ItemDriver:
    """Drives runs of items.

    Args:
        store: where they are recorded.
        cancel: sets the token of a step that runs in this process.
    """

    def __init__(self, store: Store, cancel: Callable[[int], bool]) -> None:
        self._store = store
        self._cancel = cancel

    def drive(
        self, step_id: int, *, room: AbstractContextManager[object] | None, run: Callable[[Job], object]
    ) -> bool:
        """Run the items of a step that have not started.

        Args:
            step_id: the step that scattered them.
            room: how many run at once, in all drives that share it; None for one after the other, right here.
            run: runs an item to its end.

        Returns:
            Whether there were any.
        """
        record = self._store.scatters.of_steps([step_id]).get(step_id)
        if record is None or record.is_open or record.is_over:
            return False
        run_record = self._store.catalog.run(record.run_id)
        width = (run_record.max_concurrency if run_record else None) or 1
        if room is None or width == 1:
            return self._one_by_one(record.run_id, run)
        return self._side_by_side(record.run_id, width, room, run)

    def _one_by_one(self, run_id: str, run: Callable[[Job], object]) -> bool:
        found = False
        while page := self._pending(run_id):
            found = True
            for item in page:
                self._run(item, run)
        return found

    def _side_by_side(
        self, run_id: str, width: int, room: AbstractContextManager[object], run: Callable[[Job], object]
    ) -> bool:
        def one(item: StepRecord) -> None:
            with room:
                self._run(item, run)

        found = False
        threads = StepThreads(width, name="flowstone-items")
        try:
            while page := self._pending(run_id):
                found = True
                for item in page:
                    threads.submit(partial(one, item), item.id)
                left = len(page)
                while left:
                    left -= len(threads.ended())
        finally:
            threads.close()
        return found

    def _pending(self, run_id: str) -> list[StepRecord]:
        return self._store.catalog.steps(run_id, state=State.PENDING, limit=_PAGE)

    def _run(self, item: StepRecord, run: Callable[[Job], object]) -> None:
        try:
            run(_job(item))
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                raise
        except BaseException:  # noqa: BLE001 - recorded with the item; the others go on
            # perhaps it was one failure too many: what runs in this process as well is signalled
            with suppress(Exception):
                for other in self._store.catalog.steps(item.run_id, state=State.CANCELLING, limit=_PAGE):
                    self._cancel(other.id)


def _job(item: StepRecord) -> Job:
    return Job(
        id=item.id,
        asset=item.asset,
        partition=decode_partition(item.partition_key),
        run_id=item.run_id,
        executor=item.executor,
        priority=item.priority,
    )


DEFAULT_RETRY = RetryPolicy()
_MAX_PAUSE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.1
_AWAY_SECONDS = 120.0
_EVERY = 1_000_000
# read once: a method or a member of a class is looked up each time
_now = datetime.now
_materialization_of = Materialization.of_attempt
_COMPLETED = State.COMPLETED

log = logging.getLogger("flowstone")


class ResultMaker(Protocol):
    """Makes what verbs return of the record of a step."""

    def of_record(self, record: StepRecord) -> Materialization:
        """Return the materialization that a finished step stands for, or raise why it has none."""


class InlineRunner:
    """What inline executors receive as `run`.

    Args:
        graph: the assets.
        store: where steps are claimed and committed.
        reader: resolves inputs.
        runner: performs attempts.
        results: makes what is returned.
        hold_limits: waits for the named limits of an asset and holds them.
        await_approval: waits until a step no longer waits for approval.
        on_released: called with the steps that a commit released, in the thread that committed.
        snooze_seconds: how long a step that may wait for inputs pauses before it polls for them again.
        deps_timeout_seconds: how long it may do so in all.
    """

    def __init__(
        self,
        graph: AssetGraph,
        store: Store,
        *,
        reader: InputReader,
        runner: StepRunner,
        results: ResultMaker,
        hold_limits: Callable[[Mapping[str, Limit]], AbstractContextManager[None]],
        await_approval: Callable[[int], None],
        on_released: Callable[[Sequence[int]], None],
        snooze_seconds: float = 30.0,
        deps_timeout_seconds: float = 3600.0,
    ) -> None:
        # nobody else needs the thread that waits here, so it may poll often
        self._snooze_seconds = min(snooze_seconds, _MAX_PAUSE_SECONDS)
        self._deps_timeout_seconds = deps_timeout_seconds
        self._may_wait: dict[int, float] = {}
        self._notified_waits: dict[int, str] = {}
        self._hold_limits = hold_limits
        self._await_approval = await_approval
        self._graph = graph
        self._store = store
        self._reader = reader
        self._runner = runner
        self._results = results
        self._tokens: dict[int, CancellationToken] = {}
        renew_after_fork(self, lambda runner: runner._tokens.clear())  # noqa: SLF001 - they are its own
        self._items = ItemDriver(store, self.cancel)
        self._scatters = frozenset([asset.name for asset in graph if isinstance(asset, Scatter)])
        self._limits = {asset.name: asset.concurrency for asset in graph if asset.concurrency}
        self._on_released = on_released

    def run(
        self,
        job: Job,
        *,
        timeout_seconds: float | None = None,
        stoppable: bool = False,
        items: AbstractContextManager[object] | None = None,
    ) -> Materialization:
        """Run a job until it is over, through retries, snoozes and the items that it scatters.

        Args:
            job: the placed step.
            timeout_seconds: limit for assets that declare none.
            stoppable: whether a function that runs out of time must really be stopped.
            items: room for items that run side by side; None runs them one after the other.

        Returns:
            The materialization; its state is `skipped` when the asset said so.

        Raises:
            BaseException: what the asset raised.
            StepCancelledError: the step was cancelled.
            StaleAttemptError: another attempt took its place meanwhile.
        """
        step_id = int(job.id)
        limits = self._limits.get(job.asset)
        while True:
            if limits is None:
                ended = self._attempt(step_id, timeout_seconds, stoppable)
            else:  # held for the attempt alone: while its step waits for anything, others may use them
                with self._hold_limits(limits):
                    ended = self._attempt(step_id, timeout_seconds, stoppable)
            if isinstance(ended, Materialization):
                return ended
            if isinstance(ended, BaseException):
                try:
                    raise ended
                finally:
                    del ended  # its traceback holds this frame
            if ended is State.AWAITING_APPROVAL:
                self._await_approval(step_id)
            elif job.asset in self._scatters and self._items.drive(
                step_id, room=items, run=partial(self.run, timeout_seconds=timeout_seconds, stoppable=stoppable)
            ):
                continue
            elif ended is None and (settled := self._settled(step_id)) is not None:
                return settled

    def _attempt(
        self, step_id: int, timeout_seconds: float | None, stoppable: bool
    ) -> Materialization | BaseException | State | None:
        """Run one attempt: claim, perform, commit.

        Returns:
            What the step came to when it is over, else the state it is in now; None when it cannot be claimed.
            Nothing else of the attempt outlives it: a next one must not run beside the inputs of this one.
        """
        ledger = self._store.ledger
        attempts = ledger.claim([step_id], _now(UTC))
        if not attempts:
            return None
        attempt = attempts[0]
        token = self._tokens[step_id] = CancellationToken()
        try:
            try:
                inputs = self._reader.resolve_one(attempt)
                policy = None
                if attempt.max_attempts > 1:
                    policy = self._graph[attempt.asset].retry or DEFAULT_RETRY
                completion = self._snoozed(attempt, inputs) if self._may_wait else None
                if completion is None:
                    completion = self._runner.perform(attempt, inputs, token, policy, timeout_seconds, stoppable)
            except BaseException as error:  # noqa: BLE001 - an interrupt, the database: the step is over
                completion = AttemptResult(attempt, failure(error, None), (), datetime.now(UTC))
            try:
                committed = ledger.commit([completion])[0]
            except DatabaseUnavailableError as error:
                committed = self._committed_later(completion, error)
            if telemetry.listeners:
                log_committed(completion, committed)
        finally:
            self._tokens.pop(step_id, None)
        if committed.released:
            self._on_released(committed.released)
        if committed.state in TERMINAL or not committed.accepted:
            return self._answer(completion, committed)
        if isinstance(completion.outcome, Failed):
            completion.outcome.take_exception()
        return committed.state

    def let_wait(self, step_ids: Iterable[int]) -> None:
        """Let steps of this process wait for inputs that are missing, instead of failing for that."""
        until = time.monotonic() + self._deps_timeout_seconds
        self._may_wait.update(dict.fromkeys(step_ids, until))

    def refused(self, record: StepRecord, error: BaseException, *, by: str) -> None:
        """Record that a step failed because its executor did not start it.

        Args:
            record: the step.
            error: what the executor raised.
            by: its name.
        """
        due = max(datetime.now(UTC), record.scheduled_at or record.created_at)
        attempts = self._store.ledger.claim([record.id], now=due)
        if not attempts:  # such as one that waits for a person
            self._store.ledger.request_cancel(record.id)
            return
        outcome = failure(error, None)
        outcome = replace(outcome, error=f"The executor {by!r} did not run it.\n{outcome.error}", retryable=False)
        committed = self._store.ledger.commit([AttemptResult(attempts[0], outcome, (), due)])[0]
        if committed.released:
            self._on_released(committed.released)

    def cancel(self, step_id: int, reason: str = "cancelled") -> bool:
        """Set the token of a step that runs in this process; return whether there is one."""
        token = self._tokens.get(step_id)
        if token is None:
            return False
        token.cancel(reason)
        return True

    def _committed_later(self, completion: AttemptResult, away: DatabaseUnavailableError) -> CommitResult:
        """Commit a result that is kept while the database is away; it may be so for two minutes."""
        log.warning("The result of %s is kept until the database is back: %s", completion.attempt.asset, away)
        deadline, pause = time.monotonic() + _AWAY_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            time.sleep(pause)
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)
            try:
                committed = self._store.ledger.commit([completion])[0]
            except DatabaseUnavailableError:
                if time.monotonic() >= deadline:
                    raise
                continue
            # a try that failed may have been committed all the same, when only its answer was lost
            if not committed.accepted and committed.state is State.COMPLETED:
                ready = self._store.catalog.steps(completion.attempt.run_id, state=State.PENDING, limit=_EVERY)
                return replace(committed, accepted=True, released=tuple([step.id for step in ready]))
            return committed

    def _snoozed(self, attempt: Attempt, inputs: ResolvedInputs) -> AttemptResult | None:
        """Return the end of an attempt whose inputs are missing, when it may wait for them."""
        if attempt.step_id not in self._may_wait:
            return None
        if not inputs.missing or inputs.skip is not None or inputs.error is not None:
            self._waits_no_more(attempt.step_id)
            return None
        left = self._may_wait[attempt.step_id] - time.monotonic()
        if left <= 0:
            self._waits_no_more(attempt.step_id)
            return None
        reason = waits_for(inputs.missing, describe=self._graph.describe)
        if self._notified_waits.get(attempt.step_id) != reason:
            self._notified_waits[attempt.step_id] = reason
            log.warning("%s %s", self._graph.describe(attempt.asset, attempt.partition_key), reason)
        pause = min(self._snooze_seconds, left)
        return AttemptResult(attempt, Snoozed(pause, reason), (), attempt.started_at)

    def _waits_no_more(self, step_id: int) -> None:
        del self._may_wait[step_id]
        self._notified_waits.pop(step_id, None)

    def _answer(self, completion: AttemptResult, committed: CommitResult) -> Materialization | BaseException:
        """Return the materialization, or what to raise: raised here, it would hold itself through this frame."""
        attempt, outcome = completion.attempt, completion.outcome
        if not committed.accepted:
            return StaleAttemptError(attempt.asset, attempt.attempt)
        if type(outcome) is Succeeded and committed.state is _COMPLETED and outcome.value is not STORED_REMOTELY:
            return _materialization_of(completion)
        if isinstance(outcome, Failed) and committed.state is State.FAILED:
            error = outcome.take_exception()
            if error is not None:
                return error.with_traceback(user_traceback(error.__traceback__))
        record = self._store.catalog.step(attempt.step_id)
        assert record is not None
        return self._results.of_record(record)

    def _settled(self, step_id: int) -> Materialization | None:
        """Answer for a step that cannot be claimed, or wait a little until that changes."""
        record = self._store.catalog.step(step_id)
        if record is None:
            raise RunNotFoundError("step", str(step_id))
        if record.state.is_terminal:
            return self._results.of_record(record)
        if record.state is State.AWAITING_APPROVAL:
            self._await_approval(step_id)
            return None
        pause = _MAX_PAUSE_SECONDS
        if record.scheduled_at is not None and record.state in (State.SCHEDULED, State.RETRYING):
            pause = max(0.0, (record.scheduled_at - datetime.now(UTC)).total_seconds())
        # waiting on the step, not sleeping: a cancel ends the pause at once
        self._store.catalog.wait([step_id], timeout_seconds=min(pause, _MAX_PAUSE_SECONDS))
        return None
