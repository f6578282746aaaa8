"""Drives the steps of a run through an executor that is not durable: what is released is started."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from flowstone.core.forks import renew_after_fork
from flowstone.core.state import State
from flowstone.errors import StepCancelledError
from flowstone.protocols import Catalog

_POLL_SECONDS = 0.2
_LOST_SECONDS = 1.0


@dataclass(slots=True)
class Drive:
    """One run to be driven.

    Args:
        run_id: the run.
        ready: steps that may start.
        width: how many run at once.
        joined: steps of other runs that this one waits for.
        execute: runs one step through the executor and waits for it.
        on_done: called after each step; None for nothing.
    """

    run_id: str
    ready: Sequence[int]
    width: int
    joined: Sequence[int]
    execute: Callable[[int], object]
    on_done: Callable[[], None] | None


class Driver:
    """Runs until every step of a run is over.

    Steps released by a commit in this process arrive at once; those released elsewhere (a step that this
    run joined ends in another process) are found by polling the catalog slowly.

    Args:
        catalog: what is recorded.
        end_lost: ends what lost processes held of some steps; see `flowstone.protocols.Store`.
    """

    def __init__(self, catalog: Catalog, end_lost: Callable[[Sequence[int]], object] = lambda _: None) -> None:
        self._catalog = catalog
        self._end_lost = end_lost
        self._begin()
        renew_after_fork(self, Driver._begin)

    def _begin(self) -> None:
        # replaced when a drive begins or ends, so that it can be gone through while others do so
        self._inboxes: tuple[tuple[set[int], deque[int]], ...] = ()
        self._lock = threading.Lock()

    def released(self, step_ids: Sequence[int]) -> None:
        """Take note of steps that a commit in this process released."""
        for known, inbox in self._inboxes:
            for step_id in step_ids:
                if step_id in known:
                    inbox.append(step_id)

    def drive(self, run: Drive, known: Iterable[int]) -> None:
        """Run everything that is or becomes ready.

        Args:
            run: what to drive.
            known: all steps of the run.

        Raises:
            KeyboardInterrupt: the person at the terminal stopped an inline run.
        """
        inbox = deque(run.ready)
        entry = (set(known), inbox)
        with self._lock:
            self._inboxes = (*self._inboxes, entry)
        try:
            if run.width == 1:
                self._one_by_one(run, inbox)
            else:
                self._side_by_side(run, inbox)
        finally:
            with self._lock:
                self._inboxes = tuple([one for one in self._inboxes if one is not entry])

    def _one_by_one(self, run: Drive, inbox: deque[int]) -> None:
        while inbox or self._refill(run, inbox, set()):
            _execute(run, inbox.popleft())

    def _side_by_side(self, run: Drive, inbox: deque[int]) -> None:
        threads = StepThreads(run.width, name="flowstone-drive")
        running: set[int] = set()
        try:
            while inbox or running or self._refill(run, inbox, set()):
                while inbox and len(running) < run.width:
                    step_id = inbox.popleft()
                    running.add(step_id)
                    threads.submit(partial(_execute, run, step_id), step_id)
                for step_id in threads.ended():
                    running.discard(step_id)
        finally:
            threads.close()

    def _refill(self, run: Drive, inbox: deque[int], running: set[int]) -> bool:
        """Wait for what others release; return False when the run is over."""
        if not run.joined:
            return False
        due = time.monotonic() + _LOST_SECONDS
        while not inbox:
            if time.monotonic() >= due:
                self._end_lost(run.joined)
                due = time.monotonic() + _LOST_SECONDS
            over = self._catalog.wait(run.joined, timeout_seconds=_POLL_SECONDS)
            found = self._catalog.steps(run.run_id, state=State.PENDING, limit=1000)
            inbox.extend(step.id for step in found if step.run_id == run.run_id and step.id not in running)
            if over and not inbox:
                return False
        return True


class StepThreads:
    """Threads for the steps of one drive, started as they are needed.

    Unlike those of `concurrent.futures` they do not keep the process alive: what hangs in user code is left behind
    with it when a person interrupts the drive.

    Args:
        width: most threads.
        name: of each thread.
    """

    def __init__(self, width: int, *, name: str) -> None:
        self._width = width
        self._name = name
        self._todo: SimpleQueue[tuple[Callable[[], object], int] | None] = SimpleQueue()
        self._over: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
        self._started = self._at_work = 0

    def submit(self, call: Callable[[], object], number: int) -> None:
        """Have something called; `ended` returns its number afterwards."""
        self._at_work += 1
        self._todo.put((call, number))
        if self._started < min(self._at_work, self._width):
            self._started += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def ended(self) -> list[int]:
        """Wait until something has ended; return the numbers of all that has.

        Raises:
            BaseException: what a call raised.
        """
        found = [self._over.get()]
        with suppress(Empty):
            while True:
                found.append(self._over.get_nowait())
        self._at_work -= len(found)
        for _, error in found:
            if error is not None:
                raise error
        return [number for number, _ in found]

    def close(self) -> None:
        """Let the threads end when they are done with what they are at; nothing more is begun."""
        with suppress(Empty):
            while True:
                self._todo.get_nowait()
        for _ in range(self._started):
            self._todo.put(None)

    def _serve(self) -> None:
        while (item := self._todo.get()) is not None:
            call, number = item
            del item
            error: BaseException | None = None
            try:
                call()
            except BaseException as raised:  # noqa: BLE001 - raised where `ended` is called
                error = raised
            del call
            self._over.put((number, error))
            del error


def _execute(run: Drive, step_id: int) -> None:
    try:
        run.execute(step_id)
    except StepCancelledError:
        pass
    except KeyboardInterrupt:
        if threading.current_thread() is threading.main_thread():
            raise
    except BaseException:  # noqa: BLE001, S110 - recorded with the step; the rest of the run goes on
        pass
    finally:
        if run.on_done is not None:
            run.on_done()
