"""What a worker node does beside its work: cancels, limits of queues, lost workers, lost starts."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from flowstone.executors.oban.attempts import Attempts
from flowstone.executors.oban.threads import StepThreads
from flowstone.protocols import DurableQueue, Ledger

log = logging.getLogger("flowstone.worker")

_POLL_SECONDS = 1.0


class AskStore(Protocol):
    """Runs a question to the store in a thread: nothing blocks the loop."""

    async def __call__[T](self, function: Callable[[], T]) -> T:
        """Return the answer."""


class Upkeep:
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
        ask: AskStore,
        sweep_seconds: float,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._attempts = attempts
        self._threads = threads
        self._queues = queues
        self._worker_id = worker_id
        self._call = ask
        self._sweep = sweep_seconds
        self._tasks: Sequence[asyncio.Task[None]] = ()

    def start(self, oban: Any) -> None:
        """Start the tasks."""
        self._tasks = [
            asyncio.create_task(self._every(seconds, act))
            for seconds, act in (
                (_POLL_SECONDS, self._pass_on_cancels),
                (_POLL_SECONDS, partial(self._follow_limits, oban)),
                (_POLL_SECONDS, self._return_what_waits),
                (_POLL_SECONDS, self._look_at_ranges),
                (self._sweep, self._rescue_and_sweep),
                (self._sweep, self._look_for_lost_starts),
            )
        ]

    def stop(self) -> None:
        """End the tasks."""
        for task in self._tasks:
            task.cancel()

    async def _return_what_waits(self) -> None:
        """Give back what was taken ahead and did not get its turn soon: another worker may have room."""
        waiting = [running for threads in self._threads.values() for running in threads.overdue()]
        if waiting:
            await self._call(
                partial(self._ledger.hand_back, [one.claim for one in waiting], reason="its worker was busy")
            )

    async def _look_at_ranges(self) -> None:
        """Look for what large backfills have not begun: Oban itself looks only for rows of its own table."""
        with_room = [queue for queue, threads in self._threads.items() if not threads.busy]
        if with_room:
            await self._call(partial(self._queue.nudge, with_room))

    async def _pass_on_cancels(self) -> None:
        if not self._attempts:
            return
        for running in self._attempts.of_steps(
            await self._call(lambda: self._queue.cancelling(self._worker_id()))
        ):
            running.token.cancel("cancelled")

    async def _follow_limits(self, oban: Any) -> None:
        """Take up what people set for the queues at run time."""
        for queue, limit in (await self._call(self._queue.node_limits)).items():
            if self._queues.get(queue, limit) != limit:
                log.info("Queue %s now runs %d steps at once here.", queue, limit)
                await oban.scale_queue(queue=queue, node=socket.gethostname(), limit=limit)
                self._queues[queue] = limit
                self._threads[queue].resize(limit)

    async def _rescue_and_sweep(self) -> None:
        rescued = await self._call(self._queue.rescue)
        if rescued:
            log.warning("%d attempts of lost workers were ended and placed again.", rescued)
        repaired = await self._call(self._queue.sweep)
        if repaired:
            log.info("The sweep placed or ended %d steps that had been left behind.", repaired)

    async def _look_for_lost_starts(self) -> None:
        held = await self._call(lambda: self._queue.held(self._worker_id()))
        forgotten = self._attempts.forgotten(held)
        if forgotten:
            log.warning("%d attempts were begun here without this worker learning of it.", len(forgotten))
            await self._call(partial(self._ledger.hand_back, forgotten, reason="the news of its start was lost"))

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
