"""Runs of items inside of transactions: closed, stopped, and their end releases the step that scattered them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowstone.core.outcome import Scattered
from flowstone.core.state import State
from flowstone.core.step import Completion
from flowstone.stores.postgres import transport
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


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
    for run_id, is_closed, may_have_lost in connection.execute(
        load_sql("scatters/close"), {"scattered": scattered}
    ):
        closing.runs[run_id] = int(is_closed)
        if is_closed and may_have_lost:
            reopened.append(run_id)
    if reopened:
        closing.gone = _let_go(connection, reopened)
    return closing


def _let_go(connection: Connection[TupleRow], runs: Sequence[str]) -> list[int]:
    """Forget items that were not found again; return those of them that are not over."""
    gone = connection.execute(load_sql("scatters/vanished"), {"runs": list(runs)}).fetchall()
    failed = Counter(run_id for _, run_id, state in gone if state == State.FAILED)
    for run_id, number in failed.items():
        connection.execute(load_sql("scatters/forgive"), {"run_id": run_id, "failures": number})
    return [step_id for step_id, _, state in gone if not State(state).is_terminal]


def exceeded(
    rows: Sequence[Sequence[Any]], counts: Mapping[str, Mapping[str, int]], closed: Mapping[str, int]
) -> list[str]:
    """Return the runs of items that this transaction brought beyond their threshold.

    Args:
        rows: of `ledger/count_finished`.
        counts: what was counted, by run.
        closed: runs whose threshold may have become known now.
    """
    found = []
    for row in rows:
        run_id, left, failures, allowed = row[0], row[1], row[7], row[8]
        if row[6] is None or not left or not is_beyond(failures, allowed):
            continue
        if run_id in closed or failures - counts[run_id]["failures"] <= allowed:
            found.append(run_id)
    return found


def is_beyond(failures: int, allowed: int | None) -> bool:
    """Whether more items of a run failed than may."""
    return allowed is not None and failures > allowed


def left_behind(connection: Connection[TupleRow], steps: Sequence[int]) -> tuple[list[str], list[str]]:
    """Return the runs of items of steps that ended without a result, and which of them discovery held open."""
    if not steps:
        return [], []
    runs = [row[0] for row in connection.execute(load_sql("scatters/left_behind"), {"steps": list(steps)})]
    if not runs:
        return [], []
    held = [row[0] for row in connection.execute(load_sql("scatters/abandon"), {"runs": runs})]
    return runs, held


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


def release(connection: Connection[TupleRow], rows: Sequence[Sequence[Any]], *, durable: bool) -> set[str]:
    """Let the steps go on whose items are all over; return the queues with something to do.

    Args:
        connection: with the transaction in which the last item ended.
        rows: of `ledger/count_finished`.
        durable: whether there is a queue.
    """
    steps = [row[6] for row in rows if row[6] is not None and not row[1]]
    if not steps:
        return set()
    released = connection.execute(load_sql("scatters/release"), {"steps": steps}).fetchall()
    jobs = {job_id: step_id for step_id, job_id in released if job_id is not None}
    if not jobs or not durable:
        return set()
    woken = connection.execute(load_sql("scatters/wake"), {"jobs": list(jobs)}).fetchall()
    missing = connection.execute(load_sql("scatters/missing_jobs"), {"jobs": list(jobs)}).fetchall()
    return {row[1] for row in woken} | transport.enqueue(connection, [jobs[row[0]] for row in missing])
