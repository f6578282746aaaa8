"""The threads in which steps of a queue run, and what was taken ahead of its turn.

Asking for jobs costs several milliseconds. While steps take less than that, a second batch is taken with the
first, so that asking and working overlap. What does not get its turn within a second is given back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from flowstone.executors.oban.attempts import Attempts, Running

_SHORT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 1.0
_WEIGHT = 0.05


class Finished:
    """Resolves futures of an event loop from threads, many with one wake-up.

    Waking a loop from a thread costs a system call and a switch; under load one wake-up serves all that
    finished since the last one.

    Args:
        loop: the loop of the futures.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[asyncio.Future[None]] = deque()
        self._woken = False

    def add(self, future: asyncio.Future[None]) -> None:
        """Have a future resolved soon; called from any thread."""
        self._done.append(future)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._resolve)
            except RuntimeError:
                return  # the loop is closed: nobody waits for this any more

    def _resolve(self) -> None:
        # first the flag: a thread that adds from here on wakes the loop again
        self._woken = False
        while self._done:
            future = self._done.popleft()
            if not future.done():
                future.set_result(None)


class StepThreads:
    """Runs the steps of one queue, at most so many at once, each in a thread.

    Args:
        queue: name of the queue.
        limit: steps at once.
        attempts: told about attempts that are given back.
        finished: resolves the future of each step.
        perform: runs one attempt; never raises.
    """

    def __init__(
        self,
        queue: str,
        limit: int,
        *,
        attempts: Attempts,
        finished: Finished,
        perform: Callable[[Running], None],
    ) -> None:
        self._name = f"flowstone-{queue}"
        self._limit = limit
        self._attempts = attempts
        self._finished = finished
        self._perform = perform
        self._waiting: SimpleQueue[tuple[Running, asyncio.Future[None]] | None] = SimpleQueue()
        self._since: dict[int, tuple[float, Running]] = {}
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0
        self._closed = False
        # as if steps had been long, until they were seen to be short
        self._typical_seconds = 1.0

    def beyond(self) -> int:
        """Return how many jobs may be taken beyond the free places."""
        return self._limit if self._typical_seconds < _SHORT_SECONDS else 0

    def submit(self, running: Running, future: asyncio.Future[None]) -> None:
        """Run an attempt when there is a thread for it, and resolve the future after it."""
        self._since[running.claim.token] = (time.monotonic(), running)
        with self._lock:
            self._unfinished += 1
            if self._threads < min(self._limit, self._unfinished):
                self._threads += 1
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        self._waiting.put((running, future))

    def resize(self, limit: int) -> None:
        """Run another number of steps at once from now on; those that run are let finish."""
        with self._lock:
            surplus = self._threads - limit
            self._limit = limit
        for _ in range(surplus):
            self._waiting.put(None)

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True

    def overdue(self) -> list[Running]:
        """Take out what has waited for too long; its turn will not come any more."""
        before = time.monotonic() - _LONGEST_WAIT_SECONDS
        found = []
        for key, (since, running) in list(self._since.items()):
            if since < before and self._since.pop(key, None) is not None:
                self._attempts.dropped(running)
                found.append(running)
        return found

    def _serve(self) -> None:
        while True:
            item = self._waiting.get()
            if item is None:
                with self._lock:
                    self._threads -= 1
                return
            running, future = item
            # whoever takes the entry decides: this thread runs the attempt, or `overdue` has given it back
            if not self._closed and self._since.pop(running.claim.token, None) is not None:
                started = time.monotonic()
                self._perform(running)
                took = min(time.monotonic() - started, 1.0)
                self._typical_seconds += _WEIGHT * (took - self._typical_seconds)
            with self._lock:
                self._unfinished -= 1
            self._finished.add(future)
