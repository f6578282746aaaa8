"""The attempts that a worker node has in flight, and the threads in which they run.

Asking for jobs costs several milliseconds. While steps take less than that, more of them are acquired with the
first ones, so that asking and working overlap. What does not get its turn within a second is released.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

from flowstone.core.context import CancellationToken
from flowstone.core.step import Attempt


@dataclass(slots=True)
class Running:
    """An attempt at work.

    Args:
        attempt: the attempt.
        token: signals its function to stop.
        prepared: the versions that it reads, or why it cannot be run.
    """

    attempt: Attempt
    token: CancellationToken
    prepared: Any


class UnstartedAttempts(Protocol):
    """Where a worker notes which attempts it has taken and not started, for when it is killed."""

    def add(self, tokens: Iterable[int]) -> None:
        """Note attempts that were taken."""

    def remove(self, tokens: Iterable[int]) -> None:
        """Forget attempts that start, or were released."""


class Attempts:
    """Knows what runs here and what waits to be committed; each method may be called from any thread.

    Keyed by token, because one step may be here twice: an attempt that lost its lease still runs when the
    next one of the same step starts.

    Args:
        unstarted: outlives this process, if there is such a place.

    Example:
        >>> attempts = Attempts()
        >>> attempts.running()
        []
    """

    def __init__(self, unstarted: UnstartedAttempts | None = None) -> None:
        self._unstarted = unstarted
        self._running: dict[int, Running] = {}
        self._submitted: set[int] = set()
        self._suspects: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._running)

    def taken(self, attempts: Sequence[Attempt]) -> None:
        """Note that attempts were started in the tables; none of them has begun here."""
        if self._unstarted is not None:
            self._unstarted.add([one.token for one in attempts])

    def begun(self, attempts: Sequence[Attempt]) -> None:
        """Note that the functions of attempts are called, or never will be."""
        if self._unstarted is not None:
            self._unstarted.remove([one.token for one in attempts])

    def started(self, running: Running) -> None:
        """Take an attempt up."""
        self._running[running.attempt.token] = running

    def submitted(self, running: Running) -> None:
        """Note that an attempt is over and waits for its commit."""
        self._submitted.add(running.attempt.token)
        self._running.pop(running.attempt.token, None)

    def released(self, running: Running) -> None:
        """Note that an attempt is released without having started."""
        self.begun([running.attempt])
        self._running.pop(running.attempt.token, None)

    def running(self) -> list[Running]:
        """Return what runs."""
        return list(self._running.values())

    def of_steps(self, steps: Sequence[int]) -> list[Running]:
        """Return the attempts of some steps that run."""
        requested = set(steps)
        return [one for one in self.running() if one.attempt.step_id in requested]

    def unknown(self, held: Sequence[Attempt]) -> list[Attempt]:
        """Return the attempts that the tables say are here, and are not.

        Args:
            held: what the tables say.
        """
        self._submitted.intersection_update([attempt.token for attempt in held])
        return [one for one in held if one.token not in self._running and one.token not in self._submitted]

    def forgotten(self, held: Sequence[Attempt]) -> list[Attempt]:
        """Return what was unknown the last time too: its start was committed, and the news of it was lost.

        Args:
            held: what the tables say.
        """
        unknown = self.unknown(held)
        # once is no proof: an attempt may have been taken up, or its commit made, since the tables were asked
        forgotten = [one for one in unknown if one.token in self._suspects]
        self._suspects = {one.token for one in unknown}
        return forgotten


_SHORT_SECONDS = 0.02
_TINY_SECONDS = 0.001
_WATCH_SECONDS = 0.003
_AHEAD_SECONDS = 0.1
_MAX_AHEAD = 8
_MAX_WAIT_SECONDS = 1.0
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
        self._asking: deque[Callable[[], object]] = deque()
        self._woken = False

    def future(self) -> asyncio.Future[None]:
        """Return a new future of the loop; called from any thread."""
        return self._loop.create_future()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have something called on the loop when some time is over; called from any thread."""
        self.ask(partial(self._loop.call_later, seconds, callback))

    def add(self, future: asyncio.Future[None]) -> None:
        """Have a future resolved soon; called from any thread."""
        self._done.append(future)
        self._wake()

    def ask(self, ask: Callable[[], object]) -> None:
        """Have something called soon on the loop; called from any thread."""
        self._asking.append(ask)
        self._wake()

    def _wake(self) -> None:
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
        while self._asking:
            self._asking.popleft()()


type _Waiting = tuple[Running, deque[Running], asyncio.Future[None]]
"""A step, what is left of its share, and the future of the share."""


class StepThreads:
    """Runs the steps of one queue, at most so many at once, each in a thread.

    A step gets a thread of its own at once, unless steps have been so short lately that waking a thread takes
    longer than running one: then the threads that are awake take one after the other, and another one is
    woken as soon as a step has waited for some milliseconds.

    Args:
        queue: name of the queue.
        limit: steps at once.
        attempts: notes attempts that are released.
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
        self._waiting: deque[_Waiting] = deque()
        self._since: dict[int, tuple[float, Running]] = {}
        self._wake_ups: SimpleQueue[None] = SimpleQueue()
        self._unfinished = 0
        self._asleep = 0
        self._awake = 0
        self._watched = False
        self._closed = False
        # as if steps had been long, until they were seen to be short
        self._typical_seconds = 1.0
        self.on_room: Callable[[], None] = lambda: None
        """Called on the loop when a step ended whose share goes on: there is room for another one."""

    def capacity(self) -> int:
        """Return how many steps may be here, at work and ahead: the limit, and a small part of a second's work."""
        if self.takes_long:
            return self._limit
        ahead = int(_AHEAD_SECONDS / max(self._typical_seconds, _TINY_SECONDS / 100))
        return self._limit + max(self._limit, min(ahead, _MAX_AHEAD * self._limit))

    def room(self, places: int) -> int:
        """Return how many steps may be taken for so many free places of the producer."""
        capacity = self.capacity()
        return max(0, min(places * capacity // self._limit, capacity - self._unfinished))

    def room_at_commit(self) -> tuple[int, bool]:
        """Return how many steps may begin here that a commit releases, and whether only if nothing else waits.

        The producer takes whatever there is a place for at the same moment. While steps are short, what is one too
        many has its turn soon all the same; of long ones nothing is taken beside the producer.
        """
        if self._closed:
            return 0, True
        if self.takes_long:
            return max(0, self._limit - self._unfinished), True
        return max(0, 2 * self.capacity() - self._unfinished), False

    def shares[T](self, steps: Sequence[T], places: int) -> list[Sequence[T]]:
        """Divide steps among places, as evenly over the capacity as possible."""
        if not steps:
            return []
        number = max(1, min(places, -(-len(steps) * self._limit // self.capacity())))
        size = -(-len(steps) // number)
        return [steps[start : start + size] for start in range(0, len(steps), size)]

    def shares_of_begun[T](self, steps: Sequence[T]) -> list[Sequence[T]]:
        """Divide steps that began with a commit: they take no place of the producer, tiny ones need no shares."""
        if self._typical_seconds < _TINY_SECONDS:
            return [steps] if steps else []
        return self.shares(steps, self._limit)

    @property
    def busy(self) -> bool:
        """Whether every place is taken."""
        return self._awake >= self._limit or bool(self._waiting)

    @property
    def takes_long(self) -> bool:
        """Whether steps have taken so long lately that none is taken ahead."""
        return self._typical_seconds >= _SHORT_SECONDS

    def submit(self, share: Sequence[Running], future: asyncio.Future[None]) -> None:
        """Run attempts when there are threads for them, resolve the future after them; called from any thread."""
        now = time.monotonic()
        left = deque(share)  # taking from it is atomic: whoever finds it empty was the last one
        with self._lock:
            self._unfinished += len(share)
            for running in share:
                self._since[running.attempt.token] = (now, running)
                self._waiting.append((running, left, future))
            if self._typical_seconds >= _TINY_SECONDS:
                for _ in share:
                    self._wake()
                return
            if not self._awake:
                self._wake()
            is_watched, self._watched = self._watched, True
        if not is_watched:
            self._finished.call_later(_WATCH_SECONDS, self._watch)

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
        before = time.monotonic() - _MAX_WAIT_SECONDS
        found = []
        for key, (since, running) in list(self._since.items()):
            if since < before and self._since.pop(key, None) is not None:
                self._attempts.released(running)
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
        asyncio.get_running_loop().call_later(_WATCH_SECONDS, self._watch)

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
            running, left, future = item
            # whoever takes the entry decides: this thread runs the attempt, or `overdue` has given it back
            if not self._closed and self._since.pop(running.attempt.token, None) is not None:
                self._attempts.begun((running.attempt,))
                started = time.monotonic()
                self._perform(running)
                took = min(time.monotonic() - started, 1.0)
                self._typical_seconds += _WEIGHT * (took - self._typical_seconds)
            # before the producer learns of the place: it asks for as many steps as there is room for just then
            with self._lock:
                self._unfinished -= 1
            left.pop()
            if not left:
                self._finished.add(future)
            elif self._typical_seconds >= _TINY_SECONDS:
                self._finished.ask(self.on_room)

    def _next(self) -> _Waiting | None:
        """Return the next step; None when this thread is to sleep."""
        with self._lock:
            if self._waiting and self._awake <= self._limit:
                return self._waiting.popleft()
            self._awake -= 1
            self._asleep += 1
            return None
