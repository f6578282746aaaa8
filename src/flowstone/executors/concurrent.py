"""Runs jobs side by side in this process."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

from flowstone.core.capability import Capability
from flowstone.core.declaring import checks_options, shown, whole_number
from flowstone.core.forks import renew_after_fork
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.errors import OptionsError
from flowstone.executors.options import check_options, seconds_option
from flowstone.protocols import ChecksOptions, Executor, RunJob

_OPTIONS = frozenset({"timeout_seconds"})
_log = logging.getLogger("flowstone.executors.async")
_IDLE_SECONDS = 5.0


@checks_options
class AsyncExecutor(Executor, ChecksOptions):
    """Runs jobs concurrently: `def` functions in threads, `async def` functions on one event loop.

    `schedule` returns at once; status and result are there for any thread, in the store, until this process
    ends. Jobs that have not ended by then are lost, which the capability `non_persistent` says.

    Args:
        max_concurrency: most jobs at once.
        timeout_seconds: limit for assets that declare none. A function in a thread cannot be stopped: its
            step fails, its result is never published, its thread ends when it ends.

    Example:
        >>> AsyncExecutor(max_concurrency=4).name
        'async'
    """

    name = "async"
    capabilities = frozenset(
        {
            Capability.CONCURRENT,
            Capability.SCHEDULED_AT,
            Capability.PRIORITY,
            Capability.NON_PERSISTENT,
            Capability.RETRY,
            Capability.TIMEOUT,
        }
    )

    def __init__(self, *, max_concurrency: int = 32, timeout_seconds: float = 60.0) -> None:
        if whole_number(max_concurrency, minimum=1, maximum=10_000) is None:
            raise OptionsError(f"max_concurrency={shown(max_concurrency)}: give a whole number from 1 to 10,000.")
        self.max_concurrency = max_concurrency
        self._timeout = seconds_option("timeout_seconds", timeout_seconds)
        self._run: RunJob | None = None
        self._begin()
        # what waits in the queue is the parent's, and its threads are not in a forked child
        renew_after_fork(self, AsyncExecutor._begin)

    def _begin(self) -> None:
        self._slots = threading.BoundedSemaphore(self.max_concurrency)
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, int, Job, dict[str, Any]]] = []
        self._order = count()
        self._threads = 0
        self._idle = 0

    def bind(self, run: RunJob) -> None:
        self._run = run

    def check(self, options: Mapping[str, Any]) -> None:
        check_options(self.name, options, _OPTIONS)
        seconds_option("timeout_seconds", options.get("timeout_seconds"), warn=True)

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job as soon as there is room and wait for it.

        Args:
            job: the job.
            **options: `timeout_seconds`.
        """
        check_options(self.name, options, _OPTIONS)
        timeout = seconds_option("timeout_seconds", options.get("timeout_seconds")) or self._timeout
        assert self._run is not None, "bind() comes first"
        with self._slots:
            return self._run(job, timeout_seconds=timeout)

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job and return at once; it starts when there is room and its time has come."""
        self.check(options)
        wait = (job.scheduled_at - datetime.now(UTC)).total_seconds() if job.scheduled_at else 0.0
        # what may start at once is ordered by priority alone
        due = time.monotonic() + wait if wait > 0 else 0.0
        with self._changed:
            heapq.heappush(self._queue, (due, job.priority, next(self._order), job, options))
            # idle threads that were notified already still count as idle, so compare with all that is queued
            if len(self._queue) > self._idle and self._threads < self.max_concurrency:
                self._threads += 1
                threading.Thread(target=self._serve, name="flowstone-async", daemon=True).start()
            self._changed.notify()
        return job

    def _serve(self) -> None:
        """Take jobs until there are none for a while; a thread per job at work, none when idle."""
        while True:
            taken = self._take()
            if taken is None:
                return
            job, options = taken
            try:
                self.execute(job, **options)
            except BaseException as error:  # noqa: BLE001 - recorded with the step; this thread goes on
                _log.debug("%s ended with %s", job.asset, type(error).__name__)

    def _take(self) -> tuple[Job, dict[str, Any]] | None:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._queue and self._queue[0][0] <= now:
                    _, _, _, job, options = heapq.heappop(self._queue)
                    return job, options
                wait = self._queue[0][0] - now if self._queue else _IDLE_SECONDS
                self._idle += 1
                notified = self._changed.wait(wait)
                self._idle -= 1
                if not notified and not self._queue:
                    self._threads -= 1
                    return None
