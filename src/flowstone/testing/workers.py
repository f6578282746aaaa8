"""Workers inside the process of a test, and waiting until nothing is left to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakSet

from flowstone.app.flow import FlowStone
from flowstone.app.results import RunHandle, RunResult
from flowstone.app.worker import working
from flowstone.core.declaring import duration, shown
from flowstone.core.job import Job
from flowstone.core.state import State
from flowstone.errors import OptionsError, WaitTimeoutError

_POLL_SECONDS = 0.02
_MAX_RUNS = 10_000
_MOVES = (State.PENDING, State.RUNNING, State.CANCELLING, State.RETRYING)
_served: WeakSet[FlowStone] = WeakSet()
_lock = threading.Lock()


@contextmanager
def worker(flow: FlowStone) -> Iterator[None]:
    """Run a worker for an app in this process while the block runs, in threads.

    Breakpoints, coverage and fakes reach the steps; schedules, sensors and conditions are left to the test.

    Raises:
        ExecutorUnavailableError: the app has no database.
    """
    with _lock:
        served = flow in _served
        _served.add(flow)
    if served:  # a second node would only compete with the first
        yield
        return
    try:
        with working(flow):
            yield
    finally:
        with _lock:
            _served.discard(flow)


def run_to_completion(
    flow: FlowStone, run: RunHandle | Job | str | None = None, *, timeout_seconds: float = 60.0
) -> RunResult | None:
    """Perform what is placed on the queue of an app until it is over, with a worker in this process.

    Args:
        flow: an app with a database.
        run: only until this one is over; None for everything that is placed, and placed meanwhile. Steps that
            wait for a person, for inputs from outside their run, or for a later time are left then.
        timeout_seconds: how long that may take.

    Returns:
        The outcome of `run`; failures do not raise, see `RunResult.raise_for_failures`. None without a run.

    Raises:
        WaitTimeoutError: it was not over in time; says what it waits for.
        OptionsError: `timeout_seconds` is not above 0.
    """
    seconds = duration(timeout_seconds)
    if not seconds:
        raise OptionsError(f"timeout_seconds={shown(timeout_seconds)}: give a number above 0.")
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        stack.enter_context(worker(flow))
        if run is not None:
            run_id = run if isinstance(run, str) else run.run_id
            try:
                return flow.runs.wait(run_id, timeout_seconds=seconds)
            except WaitTimeoutError as error:
                raise _late(flow, run_id, seconds) from error
        while (moving := _moving(flow)) is not None:
            if time.monotonic() >= deadline:
                raise _late(flow, moving, seconds)
            time.sleep(_POLL_SECONDS)
        return None


def _moving(flow: FlowStone) -> str | None:
    """Return a run of which a worker can perform something."""
    for listed in flow.runs.latest(limit=_MAX_RUNS):
        if not listed.state.is_terminal:
            record = flow.runs.get(listed.id)
            unstarted = record.total - sum(record.counts.values())
            if not record.state.is_terminal and (unstarted > 0 or any(map(record.counts.get, _MOVES))):
                return record.id
    return None


def _late(flow: FlowStone, run_id: str, seconds: float) -> WaitTimeoutError:
    reasons = "; ".join(flow.parts.waiting.of_run(run_id))
    return WaitTimeoutError(f"Run {run_id!r}{f' ({reasons})' if reasons else ''}", seconds, run_id)
