"""A worker node: Oban's loops around our fetch, our threads and our group commit.

`Node` starts and stops it all; `Producer` acquires jobs for one queue; `Maintenance` does what comes up now and
then: cancels, limits of queues, lost workers, old jobs. Only this package is asynchronous: what may block goes to
a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flowstone.core.context import CancellationToken
from flowstone.core.step import Attempt, AttemptResult, BegunStep, LeftToOthers, WorkerRoom
from flowstone.executors.oban import extension
from flowstone.executors.oban.at_commit import AtCommit
from flowstone.executors.oban.extension import filter_oban_logs
from flowstone.executors.oban.signals import Signals
from flowstone.executors.oban.threads import Attempts, Finished, Running, StepThreads, UnstartedAttempts
from flowstone.protocols import DurableQueue, Ledger

if TYPE_CHECKING:
    from oban import Oban
    from psycopg_pool import AsyncConnectionPool


log = logging.getLogger("flowstone.worker")

_POLL_SECONDS = 1.0
_OPERATORS_SECONDS = 2.0
_PRUNE_SECONDS = 60.0
_MAX_SIGNALLED = 10_000
_VALUES_SECONDS = 6 * 3600.0
_OLD_SECONDS = 600.0


class CallStore(Protocol):
    """Runs a question to the store in a thread: nothing blocks the loop."""

    async def __call__[T](self, function: Callable[[], T]) -> T:
        """Return the answer."""


class Maintenance:
    """Background tasks of a node, each repeated for as long as it runs.

    Args:
        queue: finds cancels, rescues, sweeps.
        ledger: takes attempts back.
        attempts: what is at work here.
        threads: the threads of each queue.
        queues: queue name to limit; follows what people set.
        worker_id: returns the current lease.
        ask: asks the store from a thread.
        sweep_seconds: how often lost workers and leftovers are looked for.
        prune_after_seconds: age at which jobs of ours that are over are deleted; None keeps them.
        sweep_values: deletes what attempts left in the storage that died while they stored a value.
        prune_old: deletes what is kept for a time only, such as what steps logged.
        left: what this worker has left to others.
    """

    def __init__(
        self,
        *,
        queue: DurableQueue,
        ledger: Ledger,
        attempts: Attempts,
        threads: Mapping[str, StepThreads],
        queues: dict[str, int],
        worker_id: Callable[[], str],
        ask: CallStore,
        sweep_seconds: float,
        left: LeftToOthers,
        prune_after_seconds: float | None = None,
        sweep_values: Callable[[], int] | None = None,
        prune_old: Callable[[], int] | None = None,
    ) -> None:
        self._sweep_values_now = sweep_values
        self._prune_old_now = prune_old
        self._queue = queue
        self._ledger = ledger
        self._attempts = attempts
        self._threads = threads
        self._queues = queues
        self._declared = dict(queues)
        self._worker_id = worker_id
        self._call = ask
        self._sweep = sweep_seconds
        self._prune_after = prune_after_seconds
        self._signalled: set[int] = set()
        self._scaling: set[asyncio.Task[None]] = set()
        self._left = left
        self._tasks: Sequence[asyncio.Task[None]] = ()

    def start(self, oban: Any) -> None:
        """Start the tasks."""
        acts: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (_POLL_SECONDS, self._signal_cancels),
            (_POLL_SECONDS, partial(self._follow_limits, oban)),
            (_POLL_SECONDS, self._release_what_waits),
            (_POLL_SECONDS, self._poll_ranges),
            (_OPERATORS_SECONDS, self._follow_cancelled_jobs),
            (self._sweep, self._rescue_and_sweep),
            (self._sweep, self._release_lost_starts),
            (self._sweep, self._offer_what_was_left_again),
        ]
        if self._sweep_values_now is not None:
            acts.append((_VALUES_SECONDS, self._sweep_values))
        if self._prune_old_now is not None:
            acts.append((_OLD_SECONDS, self._prune_old))
        if self._prune_after:
            acts.append((_PRUNE_SECONDS, self._prune_jobs))
        self._tasks = [asyncio.create_task(self._every(seconds, act)) for seconds, act in acts]

    def stop(self) -> None:
        """End the tasks."""
        for task in self._tasks:
            task.cancel()

    def cancel_job(self, job_id: int) -> None:
        """Have a running job of Oban cancelled soon; whether it is ours and runs, the tables know."""
        if len(self._signalled) < _MAX_SIGNALLED:
            self._signalled.add(job_id)

    def scale(self, oban: Any, queue: str, limit: int) -> None:
        """Run another number of steps of a queue at once here, until another one is set."""
        task = asyncio.create_task(self._resize(oban, queue, limit))
        self._scaling.add(task)
        task.add_done_callback(self._scaling.discard)

    async def _resize(self, oban: Any, queue: str, limit: int) -> None:
        await oban.scale_queue(queue=queue, node=oban._node, limit=limit)  # noqa: SLF001 - its own name
        self._threads[queue].resize(limit)

    async def _follow_cancelled_jobs(self) -> None:
        """Cancel steps whose jobs were cancelled with Oban's tools."""
        signalled, self._signalled = self._signalled, set()
        await self._call(partial(self._queue.follow_cancels, sorted(signalled)))

    async def _sweep_values(self) -> None:
        """Delete leftovers in the storage, which may take long: nothing waits for that, not even the end."""
        threading.Thread(target=self._sweep_storage, name="flowstone-sweep", daemon=True).start()

    def _sweep_storage(self) -> None:
        assert self._sweep_values_now is not None
        try:
            deleted = self._sweep_values_now()
        except Exception as error:  # noqa: BLE001 - tried again the next time
            log.warning("Leftovers in the storage cannot be deleted for now: %s", error)
            return
        if deleted:
            log.info("%d leftovers of attempts that died while they stored a value were deleted.", deleted)

    async def _prune_old(self) -> None:
        assert self._prune_old_now is not None
        pruned = await self._call(self._prune_old_now)
        if pruned:
            log.debug("%d batches of log lines, and notifications, were deleted for their age.", pruned)

    async def _prune_jobs(self) -> None:
        """Delete old jobs of ours; Oban's pruner would delete those of everybody."""
        pruned = await self._call(partial(self._queue.prune_jobs, self._prune_after or 0.0))
        if pruned:
            log.debug("%d jobs that were over were deleted from Oban's table.", pruned)

    async def _release_what_waits(self) -> None:
        """Release what was taken ahead and did not get its turn soon: another worker may have room."""
        waiting = [running for threads in self._threads.values() for running in threads.overdue()]
        if waiting:
            await self._call(
                partial(self._ledger.release, [one.attempt for one in waiting], reason="its worker was busy")
            )

    async def _poll_ranges(self) -> None:
        """Poll for what large backfills have not started: Oban itself polls only its own table."""
        with_room = [queue for queue, threads in self._threads.items() if not threads.busy]
        if with_room:
            await self._call(partial(self._queue.nudge, with_room))

    async def _signal_cancels(self) -> None:
        if not self._attempts:
            return
        for running in self._attempts.of_steps(
            await self._call(lambda: self._queue.cancelling(self._worker_id()))
        ):
            running.token.cancel("cancelled")

    async def _follow_limits(self, oban: Any) -> None:
        """Take up what people set for the queues at run time."""
        changed = await self._call(self._queue.node_limits)
        for queue, declared in self._declared.items():
            limit = changed.get(queue, declared)
            if self._queues[queue] != limit:
                log.info("Queue %s now runs %d steps at once here.", queue, limit)
                await self._resize(oban, queue, limit)
                self._queues[queue] = limit

    async def _rescue_and_sweep(self) -> None:
        rescued = await self._call(self._queue.rescue)
        if rescued:
            log.warning("%d attempts of lost workers were ended and placed again.", rescued)
        repaired = await self._call(self._queue.sweep)
        if repaired:
            log.info("The sweep placed or ended %d steps that had been left behind.", repaired)

    async def _release_lost_starts(self) -> None:
        held = await self._call(lambda: self._queue.held(self._worker_id()))
        forgotten = self._attempts.forgotten(held)
        if forgotten:
            log.warning("%d attempts were begun here without this worker learning of it.", len(forgotten))
            await self._call(partial(self._ledger.release, forgotten, reason="the news of its start was lost"))

    async def _offer_what_was_left_again(self) -> None:
        """Draw again what was left to workers that are gone; whoever draws it when its time is over refuses it."""
        if self._left:
            others = await self._call(lambda: self._queue.known_assets(but=self._worker_id()))
            self._left.forget(others, now=time.monotonic())

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        """Repeat something; log when it begins to fail and when it works again."""
        failing = False
        what = getattr(act, "__name__", "following the limits of queues").strip("_").replace("_", " ")
        while True:
            try:
                await act()
            except Exception as error:  # noqa: BLE001 - background work goes on whatever happens
                if not failing:
                    log.warning("%s does not work for now: %s", what, error)
                failing = True
            else:
                if failing:
                    log.info("%s works again.", what)
                failing = False
            await asyncio.sleep(seconds)


_NEVER_SECONDS = 10 * 365 * 24 * 3600.0
_MARK = "flowstone@"
"""What the names of our nodes begin with, by which statements recognise our producers."""
_CONNECT_SECONDS = 5.0
_LEASE_SECONDS = 1.0
"""How long is waited at a time for a lease that is not renewed."""


class Work[Prepared](Protocol):
    """What the app hands a node: how attempts are prepared and performed."""

    def for_others(self, attempts: Sequence[Attempt]) -> list[tuple[Attempt, str]]:
        """Return the attempts that this worker leaves to others, with the reason."""

    def known(self, asset: str) -> Mapping[str, Any] | None:
        """Return the shape of an asset; None when it is not known here."""

    def prepare(self, attempts: Sequence[Attempt]) -> list[Prepared]:
        """Resolve what each of a batch of attempts reads."""

    def perform(self, attempt: Attempt, prepared: Prepared, token: CancellationToken) -> AttemptResult:
        """Run one attempt to its end; never raises."""


@dataclass(slots=True)
class TakenJob:
    """What stands for a free place of a queue in Oban's producer, which only asks for its id.

    Usually that is one step. When steps are taken ahead, each place has its share of them: what Oban does for a
    job costs more than a very short step. The steps are with their threads already when Oban learns of it.
    """

    id: int
    share: Sequence[Running]
    over: asyncio.Future[None]


class Producer(Protocol):
    """What we use of Oban's producer of a queue."""

    def notify(self) -> None:
        """Poll for jobs soon."""


class Node:
    """Runs jobs of some queues until it is stopped.

    User code runs in threads and never on the event loop; its results go to a group committer.

    Args:
        connection: connection parameters for Oban's own pool.
        schema: PostgreSQL schema of Oban's tables.
        queue: takes jobs, finds cancels, rescues.
        ledger: takes attempts back on shutdown.
        work: prepares and performs.
        submit: hands a completion to the group committer.
        worker_id: returns the current lease.
        is_renewed: waits up to so many seconds until the lease is renewed in time; returns whether it is.
        queues: queue name to limit.
        grace_seconds: how long running steps may finish on shutdown.
        sweep_seconds: how often lost workers and leftovers are looked for.
        at_commit: where the committer learns what there is room for, and hands over what began.
        unstarted: notes what was taken and waits for a thread.
        oban_name: name of the Oban instance, for Oban's tools.
        metrics: whether it reports to Oban's tools what it does.
        prune_after_seconds: age at which jobs of ours that are over are deleted; None keeps them.
        sweep_values: deletes what dead attempts left in the storage.
        prune_old: deletes what is kept for a time only, such as what steps logged.
    """

    def __init__(
        self,
        connection: Mapping[str, str],
        *,
        schema: str = "public",
        queue: DurableQueue,
        ledger: Ledger,
        work: Work[Any],
        submit: Callable[[AttemptResult], None],
        worker_id: Callable[[], str],
        is_renewed: Callable[[float], bool],
        queues: Mapping[str, int],
        grace_seconds: float,
        sweep_seconds: float,
        at_commit: AtCommit | None = None,
        unstarted: UnstartedAttempts | None = None,
        oban_name: str = "flowstone",
        metrics: bool = False,
        prune_after_seconds: float | None = None,
        sweep_values: Callable[[], int] | None = None,
        prune_old: Callable[[], int] | None = None,
    ) -> None:
        self._connection = dict(connection)
        self._schema = schema
        self._left = LeftToOthers()
        self._logged: set[str] = set()
        self._queue = queue
        self._ledger = ledger
        self._work = work
        self._submit = submit
        self._worker_id = worker_id
        self._is_renewed = is_renewed
        self._queues = dict(queues)
        self._grace = grace_seconds
        self._attempts = Attempts(unstarted)
        self._threads: dict[str, StepThreads] = {}
        self._maintenance = Maintenance(
            queue=queue,
            ledger=ledger,
            attempts=self._attempts,
            threads=self._threads,
            queues=self._queues,
            worker_id=worker_id,
            ask=self._call,
            sweep_seconds=sweep_seconds,
            prune_after_seconds=prune_after_seconds,
            left=self._left,
            sweep_values=sweep_values,
            prune_old=prune_old,
        )
        self._at_commit = at_commit
        self._finished: Finished | None = None
        self._producers: dict[str, Producer] = {}
        self._begun: set[asyncio.Future[None]] = set()
        self._unknown_to_oban: set[asyncio.Future[None]] = set()
        self._promising = set(queues)  # may have something to take; fetches for nothing delay commits
        self._cut_off = False
        self._calls = ThreadPoolExecutor(len(queues) + 3, thread_name_prefix="flowstone-node")
        self._name = oban_name
        self._metrics = metrics
        self._node_name = f"{_MARK}{socket.gethostname()}.{os.getpid()}"

    @property
    def is_cut_off(self) -> bool:
        """Whether the last try to take jobs failed."""
        return self._cut_off

    async def run(self, stop: asyncio.Event, *, on_ready: Callable[[], None] | None = None) -> bool:
        """Work until `stop` is set; return whether every thread of user code has ended."""
        filter_oban_logs()
        loop = asyncio.get_running_loop()
        self._finished = Finished(loop)
        self._threads.update(self._make_threads(self._finished))
        if self._at_commit is not None:
            self._at_commit.connect(self._room, self._take_up)
        async with self._make_pool() as pool:
            extension.install()
            oban = self._make_oban(pool)
            extension.attach(oban, stage=self._stage, signals=self._signals(oban))
            try:
                await self._wait_for_lease(stop)
                await oban.start()
                self._maintenance.start(oban)
                if not await extension.wait_listening(oban):
                    log.warning("The channels of Oban are not listened on yet; signals may be missed meanwhile.")
                if on_ready is not None:
                    on_ready()
                await stop.wait()
                log.info("Stopping: nothing new is taken, running steps have %g s to finish.", self._grace)
                for threads in self._threads.values():
                    threads.close()
                last = loop.time() + self._grace
                await oban.stop()
                if others := self._begun | self._unknown_to_oban:  # Oban waits only for what it knows
                    await asyncio.wait(others, timeout=max(0.0, last - loop.time()))
            finally:
                self._maintenance.stop()
            return await self._release()

    async def _wait_for_lease(self, stop: asyncio.Event) -> None:
        """Wait for the first renewal: what is taken before it may be taken away while it runs."""
        while not stop.is_set() and not await self._call(partial(self._is_renewed, _LEASE_SECONDS)):
            log.info("Waiting for the process that renews the lease.")

    def _make_threads(self, finished: Finished) -> dict[str, StepThreads]:
        return {
            queue: StepThreads(queue, limit, attempts=self._attempts, finished=finished, perform=self._perform_now)
            for queue, limit in self._queues.items()
        }

    def _make_pool(self) -> AsyncConnectionPool:
        from psycopg.conninfo import make_conninfo
        from psycopg_pool import AsyncConnectionPool

        return AsyncConnectionPool(
            # as one string, because Oban's notifier connects with the string alone
            make_conninfo(**self._connection),
            kwargs={"autocommit": True},
            min_size=1,
            max_size=len(self._queues) + 3,
            open=False,
            name="flowstone",
            # after an outage the next request connects, instead of a schedule that slows down all the time
            timeout=_CONNECT_SECONDS,
            reconnect_timeout=_CONNECT_SECONDS,
        )

    def _make_oban(self, pool: AsyncConnectionPool) -> Oban:
        from oban import Oban

        return Oban(
            pool=pool,
            name=self._name,
            prefix=self._schema,
            node=self._node_name,
            queues=dict(self._queues),
            dispatcher=_Dispatcher(self),
            # a leader prunes, rescues and inserts cron jobs for everybody who has rows in the table
            leadership=False,
            # its rescue goes by age alone, which would start a slow step twice; ours goes by lease
            lifeline={"interval": 3600.0, "rescue_after": _NEVER_SECONDS},
            shutdown_grace_period=self._grace,
            metrics=self._metrics or None,
        )

    def _signals(self, oban: Oban) -> Signals:
        return Signals(
            ident=f"{self._name}.{self._node_name}",
            queues=self._queues,
            scale=partial(self._maintenance.scale, oban),
            cancel=self._maintenance.cancel_job,
            announced=self._promising.add,
        )

    async def _stage(self, queues: Sequence[str]) -> list[str]:
        """Make jobs of ours available that are due; return the queues with work."""
        try:
            found = await self._call(partial(self._queue.stage, queues))
        except Exception:
            self._promising.update(queues)  # a fetch finds out whether the database is there
            raise
        self._promising.update(found)
        return found

    async def take_jobs(self, queue: str, demand: int, uuid: str) -> list[Any]:
        """Take jobs, start their attempts, run them; return what stands for them in Oban."""
        try:
            taken = await self._call(partial(self._take_now, queue, demand, uuid))
        except Exception as error:  # noqa: BLE001 - Oban asks again within a second or so
            if not self._cut_off:
                log.warning("No jobs can be taken for now: %s", error)
            self._cut_off = True
            return []
        if self._cut_off:
            log.info("Jobs are taken again.")
            self._cut_off = False
        return taken

    def _room(self) -> WorkerRoom | None:
        """Return what may begin here with the next commit; called by the committer."""
        if self._left or self._cut_off or not self._is_renewed(0.0):
            return None
        queues: dict[str, int] = {}
        only_idle = set()
        for queue, producer in list(self._producers.items()):
            room, is_idle = self._threads[queue].room_at_commit()
            if room and not extension.is_paused(producer):
                queues[queue] = room
                if is_idle:
                    only_idle.add(queue)
        return WorkerRoom(self._worker_id(), queues, frozenset(only_idle)) if queues else None

    def _take_up(self, begun: Sequence[BegunStep]) -> None:
        """Run attempts that began with a commit; called by the committer, which has the next group to commit."""
        self._attempts.taken([one.attempt for one in begun])
        with suppress(RuntimeError):  # the node has ended, and releases what it does not know
            self._calls.submit(self._prepare_begun, begun)

    def _prepare_begun(self, begun: Sequence[BegunStep]) -> None:
        queues = {one.attempt.token: one.queue for one in begun}
        attempts = [one.attempt for one in begun]
        others = self._work.for_others(attempts)
        if others:
            self._leave(others)
            gone = {attempt.token for attempt, _ in others}
            attempts = [attempt for attempt in attempts if attempt.token not in gone]
        try:
            taken = self._prepared(attempts)
        except Exception as error:  # noqa: BLE001 - they were released, and are begun again
            log.warning("Steps that began with a commit could not be prepared, and are released: %s", error)
            return
        of_queues: dict[str, list[Running]] = {}
        for running in taken:
            of_queues.setdefault(queues[running.attempt.token], []).append(running)
        for queue, of_queue in of_queues.items():
            self._start_begun(queue, of_queue)

    def _start_begun(self, queue: str, taken: Sequence[Running]) -> None:
        """Hand attempts to the threads of their queue, from this thread: a turn of the loop takes longer."""
        assert self._finished is not None
        threads, producer = self._threads[queue], self._producers[queue]
        for share in threads.shares_of_begun(taken):
            future = self._finished.future()
            self._begun.add(future)
            future.add_done_callback(partial(self._end_begun, queue, producer))
            threads.submit(share, future)

    def _end_begun(self, queue: str, producer: Producer, future: asyncio.Future[None]) -> None:
        self._begun.discard(future)
        # there is room again; a poll for each end of a very short step would cost more than the step
        if not self._begun or self._threads[queue].takes_long:
            producer.notify()

    def _take_now(self, queue: str, places: int, uuid: str) -> list[TakenJob]:
        demand = self._threads[queue].room(places)
        if not demand:
            return []
        if not self._is_renewed(_LEASE_SECONDS):
            raise TimeoutError("the lease is not renewed in time; this machine or the database is too slow")
        self._promising.discard(queue)  # before the fetch, which need not see what is announced meanwhile
        try:
            fetched = self._fetch(queue, demand, uuid)
        except BaseException:
            self._promising.add(queue)
            raise
        # of what backfills have left without jobs, others may hold a part just now
        if len(fetched) >= demand or self._queue.has_open_runs(queue):
            self._promising.add(queue)
        if not fetched:
            return []
        self._attempts.taken(fetched)
        return self._start_taken(queue, self._prepared(fetched), places)

    def _start_taken(self, queue: str, taken: Sequence[Running], places: int) -> list[TakenJob]:
        """Hand attempts to their threads at once: two turns of the loop, until Oban says so, take longer."""
        assert self._finished is not None
        threads, future = self._threads[queue], self._finished.future
        jobs = [TakenJob(one[0].attempt.job_id, one, future()) for one in threads.shares(taken, places)]
        self._unknown_to_oban.update(job.over for job in jobs)
        for job in jobs:
            threads.submit(job.share, job.over)
        return jobs

    def _prepared(self, attempts: Sequence[Attempt]) -> list[Running]:
        """Resolve what attempts read, and note that they are here."""
        try:
            prepared = self._work.prepare(attempts)
        except Exception:
            # e.g. the database went away between the two questions: the attempts have not started
            self._attempts.begun(attempts)
            self._ledger.release(attempts, reason="the worker could not prepare it")
            raise
        taken = []
        for attempt, ready in zip(attempts, prepared, strict=True):
            running = Running(attempt, CancellationToken(), ready)
            self._attempts.started(running)
            taken.append(running)
        return taken

    def _fetch(self, queue: str, demand: int, uuid: str) -> list[Attempt]:
        """Take jobs that can be run here; what cannot is released at once, for other workers."""
        ours: list[Attempt] = []
        while len(ours) < demand:
            fetched = self._queue.fetch(
                queue,
                demand=demand - len(ours),
                worker_id=self._worker_id(),
                attempted_by=[socket.gethostname(), uuid],
                left=self._left,
            )
            others = self._work.for_others(fetched)
            if not others:
                return ours + fetched
            self._leave(others)
            gone = {attempt.job_id for attempt, _ in others}
            ours += [attempt for attempt in fetched if attempt.job_id not in gone]
        return ours

    def _leave(self, others: Sequence[tuple[Attempt, str]]) -> None:
        attempts: dict[str, list[Attempt]] = {}
        for attempt, reason in others:
            self._left.add(attempt, self._work.known(attempt.asset), now=time.monotonic())
            attempts.setdefault(reason, []).append(attempt)
        for reason, left in attempts.items():
            if reason not in self._logged:
                self._logged.add(reason)
                log.warning("A step of %s is %s", left[0].asset, reason)
            self._ledger.release(left, reason=reason)

    def _perform_now(self, running: Running) -> None:
        completion = self._work.perform(running.attempt, running.prepared, running.token)
        # a step that was released meanwhile is refused by its token when this is committed
        self._attempts.submitted(running)
        self._submit(completion)

    def may_have_jobs(self, queue: str) -> bool:
        """Return whether there may be jobs: the last fetch left some behind, or some were announced since."""
        return queue in self._promising

    def know(self, queue: str, producer: Producer) -> None:
        """Note the producer of a queue, before what it takes runs: is it paused, how does it poll for more."""
        self._producers[queue] = producer
        self._threads[queue].on_room = producer.notify

    def known(self, job: TakenJob) -> asyncio.Future[None]:
        """Note that Oban knows a job; return its end."""
        self._unknown_to_oban.discard(job.over)
        return job.over

    def cancel(self, running: Running) -> None:
        """Signal a running step to stop."""
        running.token.cancel("cancelled")

    async def _call[T](self, function: Callable[[], T]) -> T:
        """Ask the store from a thread: nothing blocks the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._calls, function)

    async def _release(self) -> bool:
        """Release what did not finish in time, without using up its attempt."""
        left = self._attempts.running()
        for running in left:
            running.token.cancel("the worker stops")
        if left:
            log.warning("%d steps did not finish in time and are released.", len(left))
        # when the database is away, the lease runs out instead
        with suppress(Exception):
            await self._call(partial(self._give_up, [one.attempt for one in left]))
        self._calls.shutdown(wait=False)
        return not left

    def _give_up(self, attempts: Sequence[Attempt]) -> None:
        reason = "its worker stopped"
        if attempts:
            self._ledger.release(attempts, reason=reason)
        forgotten = self._attempts.unknown(self._queue.held(self._worker_id()))
        if forgotten:
            self._ledger.release(forgotten, reason=reason)


class _Dispatcher:
    """Oban's seam for running a job: ours runs in threads since they were taken, and the committer ends them."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def take_jobs(self, producer: Producer, queue: str, demand: int, uuid: str) -> list[Any]:
        """Take jobs for a producer, which asks at each end too; see `flowstone.executors.oban.extension`."""
        self._node.know(queue, producer)
        return await self._node.take_jobs(queue, demand, uuid) if self._node.may_have_jobs(queue) else []

    def dispatch(self, producer: Producer, job: TakenJob) -> asyncio.Future[None]:
        """Return the future of a job that runs already."""
        return self._node.known(job)

    def cancel(self, producer: object, job: TakenJob) -> None:
        """Pass on a cancel that came through Oban."""
        for running in job.share:
            self._node.cancel(running)
