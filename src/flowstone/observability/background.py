"""A queue that never blocks, with a thread of its own: what hangs at its other end holds up nobody.

An exporter may hang for as long as it likes (airflow#39232: tasks waited for their collector). Steps only put
what is to be sent into a bounded queue; what does not fit is dropped, and counted.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from flowstone.core.forks import renew_after_fork

log = logging.getLogger("flowstone.observability")

_COMPLAIN_SECONDS = 60.0
_AT_EXIT_SECONDS = 2.0
_all: weakref.WeakSet[Any] = weakref.WeakSet()


class Exporter(Protocol):
    """What sends something elsewhere, as it is counted."""

    name: str
    dropped: int
    failed: int

    @property
    def waiting(self) -> int:
        """How much waits."""

    def flush(self, *, timeout_seconds: float) -> bool:
        """Wait until it was sent."""


def report_counters_of(exporter: Exporter) -> None:
    """Count what an exporter drops, fails at and has waiting among those of this process."""
    _all.add(exporter)


class Background[Item]:
    """Hands items to a function in a thread that is started with the first one.

    Args:
        name: what people read about it, and the label of its counters.
        handle: called with each item, in the thread; what it raises is logged, once a minute at most.
        max_waiting: how many items may wait; more are dropped.

    Attributes:
        dropped: how many items were dropped because the queue was full.
        failed: for how many `handle` raised.

    Example:
        >>> seen = []
        >>> sender = Background("example", seen.append)
        >>> sender.put("a")
        True
        >>> sender.flush(timeout_seconds=5.0), seen
        (True, ['a'])
    """

    def __init__(self, name: str, handle: Callable[[Item], None], *, max_waiting: int = 10_000) -> None:
        if type(max_waiting) is not int or max_waiting < 1:
            raise ValueError(f"max_waiting={max_waiting!r} must be a whole number from 1 on.")
        self.name = name
        self.dropped = self.failed = 0
        self._handle = handle
        self._max_waiting = max_waiting
        self._complained = float("-inf")
        self._begin()
        renew_after_fork(self, Background._begin)
        _all.add(self)

    def _begin(self) -> None:
        self._waiting: queue.Queue[Item] = queue.Queue(self._max_waiting)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, item: Item) -> bool:
        """Have an item handled soon; returns at once, whether there was room for it."""
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self.dropped += 1
            self._complain("%s: the queue is full; %d so far were dropped.", self.name, self.dropped)
            return False
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    # as late as this, because what was registered last runs first: before an exporter is shut down
                    atexit.unregister(_flush_at_exit)
                    atexit.register(_flush_at_exit)
                    self._thread = threading.Thread(target=self._serve, name=f"flowstone-{self.name}", daemon=True)
                    self._thread.start()
        return True

    @property
    def waiting(self) -> int:
        """How many items wait, one that is being handled included."""
        return self._waiting.unfinished_tasks

    def flush(self, *, timeout_seconds: float) -> bool:
        """Wait until everything that was put is handled; return whether that was so in time."""
        until = time.monotonic() + timeout_seconds
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks:
                left = until - time.monotonic()
                if left <= 0.0:
                    return False
                self._waiting.all_tasks_done.wait(left)
        return True

    def _serve(self) -> None:
        while True:
            item = self._waiting.get()
            try:
                self._handle(item)
            except Exception:  # noqa: BLE001 - the next ones are handled all the same
                self.failed += 1
                self._complain("%s failed at one of its items; %d so far.", self.name, self.failed, trace=True)
            finally:
                del item
                self._waiting.task_done()

    def _complain(self, message: str, *arguments: object, trace: bool = False) -> None:
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN_SECONDS:
            self._complained = now
            log.warning(message, *arguments, exc_info=trace)


def counters() -> dict[str, tuple[int, int, int]]:
    """Return what each queue of this process has dropped, failed at, and has waiting, by name."""
    found: dict[str, tuple[int, int, int]] = {}
    for one in list(_all):
        dropped, failed, waiting = found.get(one.name, (0, 0, 0))
        found[one.name] = dropped + one.dropped, failed + one.failed, waiting + one.waiting
    return found


def _flush_at_exit() -> None:
    """Send what waits before the interpreter ends, as far as that does not take long."""
    until = time.monotonic() + _AT_EXIT_SECONDS
    for one in list(_all):
        one.flush(timeout_seconds=max(0.0, until - time.monotonic()))
