"""The threads in which steps of a queue run, and what was taken ahead of its turn.

Asking for jobs costs several milliseconds. While steps take less than that, more of them are taken with the
first ones, so that asking and working overlap. What does not get its turn within a second is given back.
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
_TINY_SECONDS = 0.001
_PATIENCE_SECONDS = 0.003
_AHEAD_SECONDS = 0.1
_MOST_AHEAD = 8
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

    A step gets a thread of its own at once, unless steps have been so short lately that waking a thread takes
    longer than running one: then the threads that are awake take one after the other, and another one is
    woken as soon as a step has waited for some milliseconds.

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
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Running, asyncio.Future[None]]] = deque()
        self._since: dict[int, tuple[float, Running]] = {}
        self._wake_ups: SimpleQueue[None] = SimpleQueue()
        self._asleep = 0
        self._awake = 0
        self._watched = False
        self._closed = False
        # as if steps had been long, until they were seen to be short
        self._typical_seconds = 1.0

    def beyond(self) -> int:
        """Return how many jobs may be taken beyond the free places: a small part of a second's work."""
        if self._typical_seconds >= _SHORT_SECONDS:
            return 0
        ahead = int(_AHEAD_SECONDS / max(self._typical_seconds, _TINY_SECONDS / 100))
        return max(self._limit, min(ahead, _MOST_AHEAD * self._limit))

    @property
    def busy(self) -> bool:
        """Whether every place is taken."""
        return self._awake >= self._limit or bool(self._waiting)

    def submit(self, running: Running, future: asyncio.Future[None]) -> None:
        """Run an attempt when there is a thread for it, and resolve the future after it; called on the loop."""
        self._since[running.claim.token] = (time.monotonic(), running)
        with self._lock:
            self._waiting.append((running, future))
            if self._awake == 0 or self._typical_seconds >= _TINY_SECONDS:
                self._wake()
                return
        if not self._watched:
            self._watched = True
            asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._watch)

    def resize(self, limit: int) -> None:
        """Run another number of steps at once from now on; those that run are let finish."""
        with self._lock:
            self._limit = limit
            for _ in range(min(limit, len(self._waiting))):
                self._wake()

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

    def _watch(self) -> None:
        """Wake as many threads again as are awake while a step waits: what blocks holds up nobody for long."""
        with self._lock:
            if not self._waiting:
                self._watched = False
                return
            for _ in range(min(len(self._waiting), max(1, self._awake))):
                self._wake()
        asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._watch)

    def _wake(self) -> None:
        """Have one more thread take steps, when the limit allows that; the caller holds the lock."""
        if self._awake >= self._limit:
            return
        self._awake += 1
        if self._asleep:
            self._asleep -= 1
            self._wake_ups.put(None)
        else:
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        while True:
            item = self._next()
            if item is None:
                self._wake_ups.get()
                continue
            running, future = item
            # whoever takes the entry decides: this thread runs the attempt, or `overdue` has given it back
            if not self._closed and self._since.pop(running.claim.token, None) is not None:
                started = time.monotonic()
                self._perform(running)
                took = min(time.monotonic() - started, 1.0)
                self._typical_seconds += _WEIGHT * (took - self._typical_seconds)
            self._finished.add(future)

    def _next(self) -> tuple[Running, asyncio.Future[None]] | None:
        """Return the next step; None when this thread is to sleep."""
        with self._lock:
            if self._waiting and self._awake <= self._limit:
                return self._waiting.popleft()
            self._awake -= 1
            self._asleep += 1
            return None
