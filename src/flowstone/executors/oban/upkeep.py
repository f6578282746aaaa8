"""The maintenance of a worker node: cancels, limits of queues, lost workers, lost starts, old jobs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from flowstone.core.queueing import LeftToOthers
from flowstone.executors.oban.attempts import Attempts
from flowstone.executors.oban.threads import StepThreads
from flowstone.protocols import DurableQueue, Ledger

log = logging.getLogger("flowstone.worker")

_POLL_SECONDS = 1.0
_OPERATORS_SECONDS = 2.0
_PRUNE_SECONDS = 60.0
_MAX_SIGNALLED = 10_000
_VALUES_SECONDS = 6 * 3600.0


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
    ) -> None:
        self._sweep_values_now = sweep_values
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
                partial(self._ledger.release, [one.claim for one in waiting], reason="its worker was busy")
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
