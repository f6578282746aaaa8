"""A worker node: Oban's loops around our fetch, our threads and our group commit."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flowstone.core.context import CancellationToken
from flowstone.core.queueing import FetchedJob, LeftToOthers
from flowstone.core.step import Claim, Completion
from flowstone.executors.oban import extension
from flowstone.executors.oban.attempts import Attempts, Running, UnstartedAttempts
from flowstone.executors.oban.quiet import filter_oban_logs
from flowstone.executors.oban.signals import Signals
from flowstone.executors.oban.threads import Finished, StepThreads
from flowstone.executors.oban.upkeep import Maintenance
from flowstone.protocols import DurableQueue, Ledger

if TYPE_CHECKING:
    from oban import Oban
    from psycopg_pool import AsyncConnectionPool

log = logging.getLogger("flowstone.worker")

_NEVER_SECONDS = 10 * 365 * 24 * 3600.0
_MARK = "flowstone@"
"""What the names of our nodes begin with, by which statements recognise our producers."""
_CONNECT_SECONDS = 5.0
_LEASE_SECONDS = 1.0
"""How long is waited at a time for a lease that is not renewed."""


class Work[Prepared](Protocol):
    """What the app hands a node: how jobs are prepared and performed."""

    def for_others(self, jobs: Sequence[FetchedJob]) -> list[tuple[FetchedJob, str]]:
        """Return the jobs that this worker leaves to others, with the reason."""

    def known(self, asset: str) -> Mapping[str, Any] | None:
        """Return the shape of an asset; None when it is not known here."""

    def prepare(self, jobs: Sequence[FetchedJob]) -> list[Prepared]:
        """Resolve what a batch of jobs needs."""

    def perform(self, job: Prepared, token: CancellationToken) -> Completion:
        """Run one attempt to its end; never raises."""


@dataclass(slots=True)
class TakenJob:
    """What stands for a free place of a queue in Oban's producer, which only asks for its id.

    Usually that is one step. When steps are taken ahead, each place has its share of them: what Oban does for a
    job costs more than a very short step.
    """

    id: int
    queue: str
    share: Sequence[Running]


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
        unstarted: notes what was taken and waits for a thread.
        oban_name: name of the Oban instance, for Oban's tools.
        metrics: whether it reports to Oban's tools what it does.
        prune_after_seconds: age at which jobs of ours that are over are deleted; None keeps them.
        sweep_values: deletes what dead attempts left in the storage.
    """

    def __init__(
        self,
        connection: Mapping[str, str],
        *,
        schema: str = "public",
        queue: DurableQueue,
        ledger: Ledger,
        work: Work[Any],
        submit: Callable[[Completion], None],
        worker_id: Callable[[], str],
        is_renewed: Callable[[float], bool],
        queues: Mapping[str, int],
        grace_seconds: float,
        sweep_seconds: float,
        unstarted: UnstartedAttempts | None = None,
        oban_name: str = "flowstone",
        metrics: bool = False,
        prune_after_seconds: float | None = None,
        sweep_values: Callable[[], int] | None = None,
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
        )
        self._cut_off = False
        self._calls = ThreadPoolExecutor(len(queues) + 3, thread_name_prefix="flowstone-node")
        self._name = oban_name
        self._metrics = metrics
        self._node_name = f"{_MARK}{socket.gethostname()}.{os.getpid()}"

    async def run(self, stop: asyncio.Event, *, on_ready: Callable[[], None] | None = None) -> bool:
        """Work until `stop` is set; return whether every thread of user code has ended."""
        filter_oban_logs()
        self._threads.update(self._make_threads(Finished(asyncio.get_running_loop())))
        async with self._make_pool() as pool:
            extension.install()
            oban = self._make_oban(pool)
            extension.attach(oban, stage=self._stage, signals=self._signals(oban))
            try:
                await self._wait_for_lease(stop)
                await oban.start()
                self._maintenance.start(oban)
                if on_ready is not None:
                    on_ready()
                await stop.wait()
                log.info("Stopping: nothing new is taken, running steps have %g s to finish.", self._grace)
                for threads in self._threads.values():
                    threads.close()
                await oban.stop()
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
        )

    async def _stage(self, queues: Sequence[str]) -> list[str]:
        """Make jobs of ours available that are due; return the queues with work."""
        return await self._call(partial(self._queue.stage, queues))

    async def take_jobs(self, queue: str, demand: int, uuid: str) -> list[Any]:
        """Take jobs, start their attempts, resolve their inputs; return what stands for them in Oban."""
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
        shares = self._threads[queue].shares(taken, demand)
        return [TakenJob(share[0][1], queue, [running for running, _ in share]) for share in shares]

    def _take_now(self, queue: str, demand: int, uuid: str) -> list[tuple[Running, int]]:
        demand = self._threads[queue].room(demand)
        if not demand:
            return []
        if not self._is_renewed(_LEASE_SECONDS):
            raise TimeoutError("the lease is not renewed in time; this machine or the database is too slow")
        fetched = self._fetch(queue, demand, uuid)
        if not fetched:
            return []
        claims = [job.claim for job in fetched]
        self._attempts.taken(claims)
        try:
            prepared = self._work.prepare(fetched)
        except Exception:
            # e.g. the database went away between the two questions: the attempts have not started
            self._attempts.begun(claims)
            self._ledger.release(claims, reason="the worker could not prepare it")
            raise
        taken = []
        for job, ready in zip(fetched, prepared, strict=True):
            running = Running(job.claim, CancellationToken(), ready)
            self._attempts.started(running)
            taken.append((running, job.job_id))
        return taken

    def _fetch(self, queue: str, demand: int, uuid: str) -> list[FetchedJob]:
        """Take jobs that can be run here; what cannot is released at once, for other workers."""
        ours: list[FetchedJob] = []
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
            gone = {job.job_id for job, _ in others}
            ours += [job for job in fetched if job.job_id not in gone]
        return ours

    def _leave(self, others: Sequence[tuple[FetchedJob, str]]) -> None:
        claims: dict[str, list[Claim]] = {}
        for job, reason in others:
            self._left.add(job, self._work.known(job.claim.asset), now=time.monotonic())
            claims.setdefault(reason, []).append(job.claim)
        for reason, left in claims.items():
            if reason not in self._logged:
                self._logged.add(reason)
                log.warning("A step of %s is %s", left[0].asset, reason)
            self._ledger.release(left, reason=reason)

    def perform(self, job: TakenJob, *, on_room: Callable[[], None]) -> asyncio.Future[None]:
        """Have steps run in threads of their queue, which hand their completions to the committer.

        Args:
            job: the steps.
            on_room: has the producer poll for more.
        """
        future = asyncio.get_running_loop().create_future()
        threads = self._threads[job.queue]
        threads.on_room = on_room
        threads.submit(job.share, future)
        return future

    def _perform_now(self, running: Running) -> None:
        completion = self._work.perform(running.prepared, running.token)
        # a step that was released meanwhile is refused by its token when this is committed
        self._attempts.submitted(running)
        self._submit(completion)

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
            await self._call(partial(self._give_up, [one.claim for one in left]))
        self._calls.shutdown(wait=False)
        return not left

    def _give_up(self, claims: Sequence[Claim]) -> None:
        reason = "its worker stopped"
        if claims:
            self._ledger.release(claims, reason=reason)
        forgotten = self._attempts.unknown(self._queue.held(self._worker_id()))
        if forgotten:
            self._ledger.release(forgotten, reason=reason)


class _Dispatcher:
    """Oban's seam for running a job: ours runs it in a thread and leaves acknowledging to the committer."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def take_jobs(self, queue: str, demand: int, uuid: str) -> list[Any]:
        """Take jobs for a producer; see `flowstone.executors.oban.extension`."""
        return await self._node.take_jobs(queue, demand, uuid)

    def dispatch(self, producer: Producer, job: TakenJob) -> asyncio.Future[None]:
        """Run a job."""
        return self._node.perform(job, on_room=producer.notify)

    def cancel(self, producer: object, job: TakenJob) -> None:
        """Pass on a cancel that came through Oban."""
        for running in job.share:
            self._node.cancel(running)
