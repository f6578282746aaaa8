"""What follows from steps that moved, in the same transaction: children, runs, windows, queue, notifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowstone.core.state import State
from flowstone.stores.postgres import limits, sub_runs, transport
from flowstone.stores.postgres.children import Children, follow_children
from flowstone.stores.postgres.counting import Counted, Follow, Tally
from flowstone.stores.postgres.sql import load_sql
from flowstone.stores.postgres.sub_runs import Stopping

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_LATER = (State.PENDING, State.SCHEDULED, State.RETRYING, State.WAITING)


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
    lost = [step.id for step in finished if step.state is not State.COMPLETED]
    resting = [step.id for step in moved if step.state is State.WAITING and step.id in (scattered or ())]
    # steps are locked before runs, by everybody
    children, tally = _follow_finished(connection, finished)
    closing = sub_runs.close(connection, resting, scattered or {})
    left, held = sub_runs.left_behind(connection, lost)
    tally.close(closing.runs | dict.fromkeys(held, 1))
    tally.leave([step for step in moved if step.state is State.AWAITING_APPROVAL and step.job_id is not None])
    counted = tally.write(connection)
    if durable:
        _keep_queue_in_step(connection, moved, delays, [*children.to_enqueue, *counted.to_place], counted)
        sub_runs.rest(connection, resting)
    sub_runs.mark_stopping(connection, [*left, *counted.exceeded], closing.gone, stopping)
    transport.announce(connection, sub_runs.release(connection, counted.rows, durable=durable))
    return children.ready


def _follow_finished(connection: Connection[TupleRow], finished: Sequence[Follow]) -> tuple[Children, Tally]:
    """Pass the end of steps on to everything below them, and add up what ended."""
    links = _links(connection, finished)
    deciding = [step.id for step in finished if step.decides]
    children = follow_children(connection, links.edges, {step.id: step.state for step in finished}, deciding)
    below = [Follow(row[0], row[1], State(row[2]), row[3]) for row in children.ended]
    if below:
        links.joined |= _links(connection, below).joined
    tally = Tally()
    tally.touch(children.touched)
    tally.finish([*finished, *below], links.joined)
    return children, tally


def _keep_queue_in_step(
    connection: Connection[TupleRow],
    moved: Sequence[Follow],
    delays: Mapping[int, object],
    to_enqueue: Sequence[int],
    counted: Counted,
) -> None:
    """Insert jobs, move those of steps that moved, and notify the nodes."""
    queues = transport.enqueue(connection, to_enqueue)
    queues |= transport.range_queues(connection, counted.roomy)
    queues |= transport.place_again(connection, [step.id for step in moved if _was_in_range(step)])
    queues |= limits.release(connection, [step for step in moved if step.limits])
    queues |= transport.settle(
        connection, [(step.id, step.job_id, step.state, delays.get(step.id)) for step in moved]
    )
    transport.announce(connection, queues)


def _was_in_range(step: Follow) -> bool:
    """Whether a step goes on later that had been begun from a range, without a job."""
    return step.job_id is not None and step.job_id < 0 and step.state in _LATER


def resume(connection: Connection[TupleRow], steps: Sequence[Sequence[Any]], *, durable: bool) -> None:
    """Place steps that go on: (id, run, state, job id, whether the run is durable)."""
    if not steps:
        return
    enqueue = [step_id for step_id, _, _, job_id, _ in steps if job_id is not None]
    touched = {run_id for _, run_id, _, job_id, on_queue in steps if on_queue and job_id is None}
    tally = Tally()
    tally.touch(touched)
    counted = tally.write(connection)
    if durable:
        transport.announce(connection, transport.enqueue(connection, [*enqueue, *counted.to_place]))


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
