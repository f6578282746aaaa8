"""The counters of runs inside of transactions: what ended is taken off, windows are refilled.

`CounterChanges` collects them, and who waits for an end is notified, so that the row of a run is locked once, at
the end of a transaction. A run of items has one thing more: its end, or too many failures in it, moves the step
that scattered it (first half of the module).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.outcome import Scattered
from flowstone.core.state import State
from flowstone.core.step import AttemptResult, NewRun, NewStep
from flowstone.sql import load_sql
from flowstone.stores.postgres import oban_jobs
from flowstone.stores.postgres.database import note_ended
from flowstone.stores.postgres.rows import MovedStep, RunCounters, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class _ClosedRow(NamedTuple):
    """A run of items whose step rests.

    Args:
        run_id: the run.
        is_closed: whether its discovery ended now.
        may_have_lost: whether an earlier attempt may have found items that this one did not.
    """

    run_id: str
    is_closed: bool
    may_have_lost: bool


class _GoneRow(NamedTuple):
    """An item that the last attempt did not find any more."""

    step_id: int
    run_id: str
    state: State


class _GatheringRow(NamedTuple):
    """A step whose items are all over."""

    id: int
    job_id: int | None


class _WokenRow(NamedTuple):
    """A resting job that is available now."""

    id: int
    queue: str


@dataclass(slots=True)
class Stopping:
    """What is to be cancelled when a transaction is over.

    Args:
        runs: runs of items.
        items: single items.
    """

    runs: set[str] = field(default_factory=set)
    items: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs or self.items)


@dataclass(slots=True)
class Closing:
    """Steps that rest because all their items are discovered now.

    Args:
        steps: the steps.
        runs: the runs of their items, and what is to be taken off their open steps.
        gone: items that the last attempt did not find any more, and that are not over.
    """

    steps: list[int] = field(default_factory=list)
    runs: dict[str, int] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)


def scattered_rows(completions: Sequence[AttemptResult]) -> dict[int, dict[str, object]]:
    """Return, by step, what the attempts say that discovered items."""
    return {
        one.attempt.step_id: {
            "step_id": one.attempt.step_id,
            "total": one.outcome.total,
            "allowed": one.outcome.allowed,
            "inputs": [list(read) for read in one.inputs],
            "is_complete": one.outcome.is_complete,
        }
        for one in completions
        if isinstance(one.outcome, Scattered)
    }


def close(
    connection: Connection[TupleRow], resting: Sequence[int], rows: Mapping[int, Mapping[str, object]]
) -> Closing:
    """End the discovery of steps that rest now.

    Args:
        connection: with the transaction in which they came to rest.
        resting: the steps.
        rows: see `scattered_rows`.
    """
    closing = Closing(list(resting))
    if not resting:
        return closing
    scattered = to_json([rows[step_id] for step_id in resting])
    reopened = []
    for run in fetch_all(connection, _ClosedRow, "scatters/close", {"scattered": scattered}):
        closing.runs[run.run_id] = int(run.is_closed)
        if run.is_closed and run.may_have_lost:
            reopened.append(run.run_id)
    if reopened:
        closing.gone = _let_go(connection, reopened)
    return closing


def _let_go(connection: Connection[TupleRow], runs: Sequence[str]) -> list[int]:
    """Forget items that were not found again; return those of them that are not over."""
    gone = fetch_all(connection, _GoneRow, "scatters/vanished", {"runs": list(runs)})
    failed = Counter(item.run_id for item in gone if item.state is State.FAILED)
    for run_id, number in failed.items():
        connection.execute(load_sql("scatters/forgive"), {"run_id": run_id, "failures": number})
    return [item.step_id for item in gone if not item.state.is_terminal]


def exceeded_runs(
    counted: Sequence[RunCounters], counts: Mapping[str, Mapping[str, int]], closed: Mapping[str, int]
) -> list[str]:
    """Return the runs of items that this transaction brought beyond their threshold.

    Args:
        counted: the runs of the transaction.
        counts: what was counted, by run.
        closed: runs whose threshold may have become known now.
    """
    found = []
    for run in counted:
        if run.releases_step is None or not run.open_steps or not run.is_beyond:
            continue
        before = run._replace(failures=run.failures - counts[run.run_id]["failures"])
        if run.run_id in closed or not before.is_beyond:
            found.append(run.run_id)
    return found


def left_behind(connection: Connection[TupleRow], steps: Sequence[int]) -> tuple[list[str], list[str]]:
    """Return the runs of items of steps that ended without a result, and which of them discovery held open."""
    if not steps:
        return [], []
    runs = fetch_column(connection, str, "scatters/left_behind", {"steps": list(steps)})
    if not runs:
        return [], []
    return runs, fetch_column(connection, str, "scatters/abandon", {"runs": runs})


def mark_stopping(
    connection: Connection[TupleRow], runs: Sequence[str], gone: Sequence[int], stopping: Stopping | None
) -> None:
    """Note that the items of runs are to be cancelled.

    Cancelling takes the locks of their steps, and whoever commits an item takes the lock of its run after that
    of its step. This transaction holds locks of runs already, so another one has to cancel.
    """
    if runs:
        connection.execute(load_sql("scatters/stop"), {"runs": list(runs)})
    if stopping is not None:
        stopping.runs.update(runs)
        stopping.items.extend(gone)


def rest(connection: Connection[TupleRow], steps: Sequence[int]) -> None:
    """Let the jobs of steps rest."""
    if steps:
        connection.execute(load_sql("scatters/rest"), {"steps": list(steps)})


def release(connection: Connection[TupleRow], counted: Sequence[RunCounters], *, durable: bool) -> None:
    """Let the steps go on whose items are all over.

    Args:
        connection: with the transaction in which the last item ended.
        counted: the runs of the transaction.
        durable: whether there is a queue.
    """
    steps = [run.releases_step for run in counted if run.releases_step is not None and not run.open_steps]
    if not steps:
        return
    released = fetch_all(connection, _GatheringRow, "scatters/release", {"steps": steps})
    jobs = {step.job_id: step.id for step in released if step.job_id is not None}
    if not jobs or not durable:
        return
    woken = fetch_all(connection, _WokenRow, "scatters/wake", {"jobs": list(jobs)})
    missing = fetch_column(connection, int, "scatters/missing_jobs", {"jobs": list(jobs)})
    oban_jobs.place(connection, [jobs[job_id] for job_id in missing], queues={job.queue for job in woken})


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
            self.runs[step.run_id]["placed"] += bool(step.job_id)
            if step.id in joined:
                self._over.append(f"s:{step.id}")

    def write(self, connection: Connection[TupleRow]) -> CountedRuns:
        """Bring the counters up to date, refill the windows, notify who waits."""
        if not self.runs:
            return CountedRuns()
        runs = to_json([{"run_id": run_id, **count} for run_id, count in self.runs.items()])
        counted = fetch_all(connection, RunCounters, "ledger/count_finished", {"runs": runs})
        over = [run for run in counted if not run.open_steps]
        record_counts(connection, [run.run_id for run in over])
        notify_done(connection, [f"r:{run.run_id}" for run in over if run.watched] + self._over)
        note_ended([run.run_id for run in over if self.runs[run.run_id]["finished"]])
        exceeded = exceeded_runs(counted, self.runs, self._closed)
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


def count_opened(connection: Connection[TupleRow], opened: Mapping[str, object]) -> None:
    """Add new steps to the counters of their run, which may be over at once.

    Args:
        connection: with the transaction that places them.
        opened: parameters of `ledger/count_opened`.
    """
    if not fetch_value(connection, int, "ledger/count_opened", opened):
        record_counts(connection, [str(opened["run_id"])])


def requested_partitions(run: NewRun, steps: Sequence[NewStep]) -> dict[str, object]:
    """Return which partitions a run was asked for, as parameters of `ledger/count_opened`."""
    keys = dict.fromkeys(step.partition_key for step in steps if step.partition_key and step.asset in run.assets)
    first, last = next(iter(keys), None), next(reversed(keys), None)
    return {"first_partition": first, "last_partition": last, "partitions": len(keys) or None}


def record_counts(connection: Connection[TupleRow], runs: Sequence[str]) -> None:
    """Write into runs that this transaction ended how many of their steps ended how."""
    if runs:
        connection.execute(load_sql("ledger/record_counts"), {"runs": list(runs)})


def count_uncounted(connection: Connection[TupleRow], *, limit: int) -> int:
    """Write the same into some runs that ended before it was written; return how many there were."""
    runs = fetch_column(connection, str, "ledger/uncounted", {"limit": limit})
    record_counts(connection, runs)
    return len(runs)


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
