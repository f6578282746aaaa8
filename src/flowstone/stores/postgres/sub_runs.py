"""Runs of items inside of transactions: closed, stopped, and their end releases the step that scattered them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.outcome import Scattered
from flowstone.core.state import State
from flowstone.core.step import Completion
from flowstone.stores.postgres import transport
from flowstone.stores.postgres.rows import RunCounters, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, load_sql

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


def scattered_rows(completions: Sequence[Completion]) -> dict[int, dict[str, object]]:
    """Return, by step, what the attempts say that discovered items."""
    return {
        one.claim.step_id: {
            "step_id": one.claim.step_id,
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


def exceeded(
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


def release(connection: Connection[TupleRow], counted: Sequence[RunCounters], *, durable: bool) -> set[str]:
    """Let the steps go on whose items are all over; return the queues with something to do.

    Args:
        connection: with the transaction in which the last item ended.
        counted: the runs of the transaction.
        durable: whether there is a queue.
    """
    steps = [run.releases_step for run in counted if run.releases_step is not None and not run.open_steps]
    if not steps:
        return set()
    released = fetch_all(connection, _GatheringRow, "scatters/release", {"steps": steps})
    jobs = {step.job_id: step.id for step in released if step.job_id is not None}
    if not jobs or not durable:
        return set()
    woken = fetch_all(connection, _WokenRow, "scatters/wake", {"jobs": list(jobs)})
    missing = fetch_column(connection, int, "scatters/missing_jobs", {"jobs": list(jobs)})
    return {job.queue for job in woken} | transport.enqueue(connection, [jobs[job_id] for job_id in missing])
