"""What follows from steps that moved, in the same transaction: children, runs, windows, queue, notifications."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.state import State
from flowstone.stores.postgres import limits, sub_runs, transport
from flowstone.stores.postgres.children import follow_children
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import load_sql
from flowstone.stores.postgres.sub_runs import Stopping

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

DONE_CHANNEL = "flowstone_done"
SEPARATOR = "\x1f"
UNLIMITED = 2_000_000_000
"""Room in the window of a run that has none."""

_MAX_PAYLOAD = 7000
_LATER = (State.PENDING, State.SCHEDULED, State.RETRYING, State.WAITING)


@dataclass(slots=True)
class Follow:
    """A step that moved.

    Args:
        id: the step.
        run_id: its run.
        state: its state now.
        job_id: its row on Oban's queue, when it has one.
        limited: whether it may hold slots of fleet-wide limits.
        decides: whether it chose which of its branches run.
    """

    id: int
    run_id: str
    state: State
    job_id: int | None
    limited: bool = False
    decides: bool = False


def follow_up(
    connection: Connection[TupleRow],
    moved: Sequence[Follow],
    delays: Mapping[int, object],
    *,
    durable: bool,
    scattered: Mapping[int, Mapping[str, object]] | None = None,
    stopping: Stopping | None = None,
) -> list[int]:
    """Do everything that follows from steps that moved.

    Args:
        connection: with the transaction in which they moved.
        moved: the steps.
        delays: seconds until those that go on later.
        durable: whether there is a queue to keep in step.
        scattered: what the steps among them say that discovered items, see `sub_runs.scattered_rows`.
        stopping: learns which items are to be cancelled when this transaction is over; else the sweep does that.

    Returns:
        Steps of runs without a queue that may start now.
    """
    if not moved:
        return []
    finished = [step for step in moved if step.state.is_terminal]
    completed = {step.id for step in finished if step.state is State.COMPLETED}
    links = _links(connection, finished)
    deciding = [step.id for step in finished if step.decides]
    children = follow_children(connection, links.edges, {step.id: step.state for step in finished}, deciding)
    below = [Follow(row[0], row[1], State(row[2]), row[3]) for row in children.ended]
    if below:
        links.joined |= _links(connection, below).joined
    leaving = [step for step in moved if step.state is State.AWAITING_APPROVAL and step.job_id is not None]
    resting = [step.id for step in moved if step.state is State.WAITING and step.id in (scattered or ())]
    closing = sub_runs.close(connection, resting, scattered or {})
    left, held = sub_runs.left_behind(connection, [step.id for step in finished if step.id not in completed])
    closed = closing.runs | dict.fromkeys(held, 1)
    counted = _count(
        connection, [*finished, *below], children.touched, links.joined, leaving=leaving, closed=closed
    )
    if durable:
        queues = transport.enqueue(connection, children.to_enqueue + counted.to_place)
        queues |= transport.range_queues(connection, counted.roomy)
        queues |= transport.place_again(connection, [step.id for step in moved if _was_in_range(step)])
        queues |= limits.release(connection, [step.id for step in moved if step.limited])
        queues |= transport.settle(connection, [(step.job_id, step.state, delays.get(step.id)) for step in moved])
        sub_runs.rest(connection, resting)
        transport.announce(connection, queues)
    sub_runs.mark_stopping(connection, [*left, *counted.exceeded], closing.gone, stopping)
    transport.announce(connection, sub_runs.release(connection, counted.rows, durable=durable))
    return children.ready


def _was_in_range(step: Follow) -> bool:
    """Whether a step goes on later that had been begun from a range, without a job."""
    return step.job_id is not None and step.job_id < 0 and step.state in _LATER


def resume(connection: Connection[TupleRow], steps: Sequence[Sequence[Any]], *, durable: bool) -> None:
    """Place steps that go on: (id, run, state, job id, whether the run is durable)."""
    if not steps:
        return
    enqueue = [step_id for step_id, _, _, job_id, _ in steps if job_id is not None]
    touched = {run_id for _, run_id, _, job_id, on_queue in steps if on_queue and job_id is None}
    counted = _count(connection, [], touched, {})
    if durable:
        transport.announce(connection, transport.enqueue(connection, enqueue + counted.to_place))


@dataclass(slots=True)
class _Links:
    """Who waits for steps: children (parent, child), and other runs."""

    edges: list[tuple[int, int]] = field(default_factory=list)
    joined: dict[int, list[str]] = field(default_factory=dict)


def _links(connection: Connection[TupleRow], steps: Sequence[Follow]) -> _Links:
    links = _Links()
    if steps:
        rows = connection.execute(load_sql("ledger/links"), {"steps": [step.id for step in steps]})
        for step_id, child_id, run_id in rows:
            if child_id is not None:
                links.edges.append((step_id, child_id))
            else:
                links.joined.setdefault(step_id, []).append(run_id)
    return links


class _Counted(NamedTuple):
    """Steps to be enqueued, limited runs with room, counters of all runs, runs of items beyond their threshold."""

    to_place: list[int] = []  # noqa: RUF012 - nobody changes it
    roomy: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    exceeded: Sequence[str] = ()


def _count(
    connection: Connection[TupleRow],
    finished: Sequence[Follow],
    touched: set[str],
    joined: Mapping[int, Sequence[str]],
    *,
    leaving: Sequence[Follow] = (),
    closed: Mapping[str, int] | None = None,
) -> _Counted:
    """Bring the counters of runs up to date, refill their windows, tell who waits for their end.

    Steps that are `leaving` the queue without being over make room in the windows as well; runs of items that are
    `closed` get no more of them.
    """
    counts: dict[str, dict[str, int]] = defaultdict(
        lambda: {"finished": 0, "placed": 0, "failures": 0, "cancellations": 0}
    )
    for run_id in touched:
        counts[run_id]["finished"] += 0
    for run_id, number in (closed or {}).items():
        counts[run_id]["finished"] += number
    for step in leaving:
        counts[step.run_id]["placed"] += 1
    for step in finished:
        for run_id in (step.run_id, *joined.get(step.id, ())):
            count = counts[run_id]
            count["finished"] += 1
            count["failures"] += step.state in (State.FAILED, State.UPSTREAM_FAILED)
            count["cancellations"] += step.state is State.CANCELLED
        counts[step.run_id]["placed"] += step.job_id is not None
    if not counts:
        return _Counted()
    runs = to_json([{"run_id": run_id, **count} for run_id, count in counts.items()])
    rows = connection.execute(load_sql("ledger/count_finished"), {"runs": runs}).fetchall()
    over = [f"r:{run_id}" for run_id, left, watched, *_ in rows if not left and watched]
    over += [f"s:{step.id}" for step in finished if step.id in joined]
    notify_done(connection, over)
    exceeded = sub_runs.exceeded(rows, counts, closed or {})
    placed: list[int] = []
    roomy: list[str] = []
    for run_id, left, _watched, durable, limit, active, _step, failures, allowed in rows:
        if not durable or not left or sub_runs.is_beyond(failures, allowed):
            continue
        if limit is None:
            # released while the run was paused, which somebody may have ended meanwhile
            placed += refill(connection, run_id, UNLIMITED) if run_id in touched else []
        elif active < limit:
            more = refill(connection, run_id, limit - active)
            placed += more
            if len(more) < limit - active:
                roomy.append(run_id)
    return _Counted(placed, roomy, rows, exceeded)


def refill(connection: Connection[TupleRow], run_id: str, room: int) -> list[int]:
    """Give jobs to the next steps of a limited run; the caller holds the lock of its row."""
    rows = connection.execute(load_sql("ledger/refill"), {"run_id": run_id, "room": room}).fetchall()
    if rows:
        connection.execute(load_sql("ledger/count_placed"), {"run_id": run_id, "placed": len(rows)})
    return [row[0] for row in rows]


def notify_done(connection: Connection[TupleRow], over: Sequence[str]) -> None:
    """Tell waiting processes, in as few notifications as fit."""
    payloads: list[str] = []
    for one in over:
        if payloads and len(payloads[-1]) + len(one) < _MAX_PAYLOAD:
            payloads[-1] += SEPARATOR + one
        else:
            payloads.append(one)
    if payloads:
        connection.execute(load_sql("ledger/notify"), {"channel": DONE_CHANNEL, "payloads": payloads})
