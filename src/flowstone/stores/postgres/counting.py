"""The counters of runs: what ended is taken off, windows are refilled, and who waits for an end is notified."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.state import State
from flowstone.stores.postgres import sub_runs
from flowstone.stores.postgres.database import note_ended
from flowstone.stores.postgres.rows import MovedStep, RunCounters, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

DONE_CHANNEL = "flowstone.done"
SEPARATOR = "\x1f"
UNLIMITED = 2_000_000_000
"""Room in the window of a run that has none."""

_MAX_PAYLOAD = 7000


class CounterChanges:
    """What one transaction changes about the counters of runs, added up before it is written."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, int]] = defaultdict(
            lambda: {"finished": 0, "placed": 0, "failures": 0, "cancellations": 0}
        )
        self._touched: set[str] = set()
        self._closed: dict[str, int] = {}
        self._over: list[str] = []

    def touch(self, runs: set[str]) -> None:
        """Check the windows of runs of which steps may start."""
        self._touched |= runs
        for run_id in runs:
            self.runs[run_id]["finished"] += 0

    def close(self, closed: Mapping[str, int]) -> None:
        """Take what held runs of items open off their steps: they get no more of them."""
        self._closed.update(closed)
        for run_id, number in closed.items():
            self.runs[run_id]["finished"] += number

    def leave(self, steps: Sequence[MovedStep]) -> None:
        """Make room in the windows of steps that leave the queue without being over."""
        for step in steps:
            self.runs[step.run_id]["placed"] += 1

    def finish(self, steps: Sequence[MovedStep], joined: Mapping[int, Sequence[str]]) -> None:
        """Take steps off that are over.

        Args:
            steps: the steps.
            joined: other runs that wait for a step.
        """
        for step in steps:
            for run_id in (step.run_id, *joined.get(step.id, ())):
                count = self.runs[run_id]
                count["finished"] += 1
                count["failures"] += step.state in (State.FAILED, State.UPSTREAM_FAILED)
                count["cancellations"] += step.state is State.CANCELLED
            self.runs[step.run_id]["placed"] += step.job_id is not None
            if step.id in joined:
                self._over.append(f"s:{step.id}")

    def write(self, connection: Connection[TupleRow]) -> CountedRuns:
        """Bring the counters up to date, refill the windows, notify who waits."""
        if not self.runs:
            return CountedRuns()
        runs = to_json([{"run_id": run_id, **count} for run_id, count in self.runs.items()])
        counted = fetch_all(connection, RunCounters, "ledger/count_finished", {"runs": runs})
        over = [run for run in counted if not run.open_steps]
        notify_done(connection, [f"r:{run.run_id}" for run in over if run.watched] + self._over)
        note_ended([run.run_id for run in over if self.runs[run.run_id]["finished"]])
        exceeded = sub_runs.exceeded(counted, self.runs, self._closed)
        return CountedRuns(*self._refill(connection, counted), counted, exceeded)

    def _refill(
        self, connection: Connection[TupleRow], counted: Sequence[RunCounters]
    ) -> tuple[list[int], list[str]]:
        """Return the steps that got a place in a window, and the limited runs whose windows have room left."""
        placed: list[int] = []
        roomy: list[str] = []
        for run in counted:
            if not run.durable or not run.open_steps or run.is_beyond:
                continue
            if run.max_concurrency is None:
                # released while the run was paused, which may have been cancelled meanwhile
                placed += refill(connection, run.run_id, UNLIMITED) if run.run_id in self._touched else []
            elif run.active_steps < run.max_concurrency:
                room = run.max_concurrency - run.active_steps
                more = refill(connection, run.run_id, room)
                placed += more
                if len(more) < room:
                    roomy.append(run.run_id)
        return placed, roomy


class CountedRuns(NamedTuple):
    """Steps to be enqueued, limited runs with room, counters of all runs, runs of items beyond their threshold."""

    to_place: Sequence[int] = ()
    roomy: Sequence[str] = ()
    runs: Sequence[RunCounters] = ()
    exceeded: Sequence[str] = ()


def refill(connection: Connection[TupleRow], run_id: str, room: int) -> list[int]:
    """Give jobs to the next steps of a limited run; the caller holds the lock of its row."""
    steps = fetch_column(connection, int, "ledger/refill", {"run_id": run_id, "room": room})
    if steps:
        connection.execute(load_sql("ledger/count_placed"), {"run_id": run_id, "placed": len(steps)})
    return steps


def notify_done(connection: Connection[TupleRow], over: Sequence[str]) -> None:
    """Notify waiting processes, in as few notifications as fit."""
    payloads: list[str] = []
    for one in over:
        if payloads and len(payloads[-1]) + len(one) < _MAX_PAYLOAD:
            payloads[-1] += SEPARATOR + one
        else:
            payloads.append(one)
    if payloads:
        connection.execute(load_sql("ledger/notify_done"), {"payloads": payloads})
