"""The child processes of one pool: which run a call, which are kept for the next one."""

from __future__ import annotations

import threading
import time

from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.engine.isolated.process import ChildProcess

EXIT_TIMEOUT_SECONDS = 1.0
"""How long a child that has nothing to do may take to end by itself."""

_CALLS_PER_CHILD = 1000


class ChildPool:
    """Gives every call a child of its own.

    Args:
        max_idle: how many children are kept between calls.
    """

    def __init__(self, max_idle: int) -> None:
        self._max_idle = max_idle
        self._all: set[ChildProcess] = set()
        self._begin()
        renew_after_fork(self, ChildPool._begin)

    def _begin(self) -> None:
        for child in self._all:  # in a forked copy of this process: they belong to the other one
            child.leave_to_parent()
        keep_of_parent(*self._all)
        self._lock = threading.Lock()
        self._all = set()
        self._idle: list[ChildProcess] = []

    def take(self) -> ChildProcess:
        """Return the idle child that was used last, or a new one."""
        while True:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            if child is None:
                break
            if child.is_alive:
                return child
            self.discard(child)
        child = ChildProcess()
        with self._lock:
            self._all.add(child)
        return child

    def release(self, child: ChildProcess) -> None:
        """Keep a child for later, unless it is old or there are enough."""
        with self._lock:
            keep = child.calls < _CALLS_PER_CHILD and len(self._idle) < self._max_idle and not child.stopped
            if keep:
                self._idle.append(child)
        if not keep:
            child.dismiss()
            child.kill(retry_seconds=EXIT_TIMEOUT_SECONDS)
            self.discard(child)

    def discard(self, child: ChildProcess) -> None:
        """End a child that must not be used again; doing it twice changes nothing."""
        with self._lock:
            known = child in self._all
            self._all.discard(child)
        if known:
            child.kill()
            child.release()

    def close(self) -> None:
        """End all of them; the threads that talk to the running ones release those."""
        with self._lock:
            idle, self._idle = self._idle, []
            running = self._all.difference(idle)
            for child in running:
                child.stopped = True
        for child in running:
            child.kill()
        for child in idle:
            child.dismiss()
        until = time.monotonic() + EXIT_TIMEOUT_SECONDS
        for child in idle:
            child.kill(retry_seconds=max(0.0, until - time.monotonic()))
            self.discard(child)
