"""What follows from steps that moved, in the same transaction: children, runs, windows, queue, notifications."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.state import State
from flowstone.stores.postgres import limits, sub_runs, transport
from flowstone.stores.postgres.children import Children, propagate_to_children
from flowstone.stores.postgres.counting import CountedRuns, CounterChanges
from flowstone.stores.postgres.rows import MovedStep, ReleasedStep
from flowstone.stores.postgres.sql import fetch_all
from flowstone.stores.postgres.sub_runs import Stopping

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_LATER = (State.PENDING, State.SCHEDULED, State.RETRYING, State.WAITING)


def propagate(
    connection: Connection[TupleRow],
    moved: Sequence[MovedStep],
    delays: Mapping[int, object],
    *,
    durable: bool,
    deciding: Container[int] = (),
    scattered: Mapping[int, Mapping[str, object]] | None = None,
    stopping: Stopping | None = None,
) -> list[int]:
    """Do everything that follows from steps that moved.

    Args:
        connection: with the transaction in which they moved.
        moved: the steps.
        delays: seconds until those that go on later.
        durable: whether there is a queue to keep in step.
        deciding: those among them that chose which of their branches run.
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
    children, changes = _propagate_ends(connection, finished, deciding)
    closing = sub_runs.close(connection, resting, scattered or {})
    left, held = sub_runs.left_behind(connection, lost)
    changes.close(closing.runs | dict.fromkeys(held, 1))
    changes.leave([step for step in moved if step.state is State.AWAITING_APPROVAL and step.job_id is not None])
    counted = changes.write(connection)
    if durable:
        _keep_queue_in_step(connection, moved, delays, [*children.to_enqueue, *counted.to_place], counted)
        sub_runs.rest(connection, resting)
    sub_runs.mark_stopping(connection, [*left, *counted.exceeded], closing.gone, stopping)
    transport.announce(connection, sub_runs.release(connection, counted.runs, durable=durable))
    return children.ready


def _propagate_ends(
    connection: Connection[TupleRow], finished: Sequence[MovedStep], deciding: Container[int]
) -> tuple[Children, CounterChanges]:
    """Pass the end of steps on to everything below them, and add up what ended."""
    links = _links(connection, finished)
    ended = {step.id: step.state for step in finished}
    children = propagate_to_children(connection, links.edges, ended, [step for step in ended if step in deciding])
    if children.ended:
        links.joined |= _links(connection, children.ended).joined
    changes = CounterChanges()
    changes.touch(children.touched)
    changes.finish([*finished, *children.ended], links.joined)
    return children, changes


def _keep_queue_in_step(
    connection: Connection[TupleRow],
    moved: Sequence[MovedStep],
    delays: Mapping[int, object],
    to_enqueue: Sequence[int],
    counted: CountedRuns,
) -> None:
    """Insert jobs, move those of steps that moved, and notify the nodes."""
    queues = transport.enqueue(connection, to_enqueue)
    queues |= transport.range_queues(connection, counted.roomy)
    queues |= transport.place_again(connection, [step.id for step in moved if _was_in_range(step)])
    queues |= limits.release(connection, [step for step in moved if step.limits])
    queues |= transport.settle(connection, moved, delays)
    transport.announce(connection, queues)


def _was_in_range(step: MovedStep) -> bool:
    """Whether a step goes on later that had been begun from a range, without a job."""
    return step.job_id is not None and step.job_id < 0 and step.state in _LATER


def resume(connection: Connection[TupleRow], steps: Sequence[ReleasedStep], *, durable: bool) -> None:
    """Place steps that go on."""
    if not steps:
        return
    enqueue = [step.id for step in steps if step.job_id is not None]
    touched = {step.run_id for step in steps if step.durable and step.job_id is None}
    changes = CounterChanges()
    changes.touch(touched)
    counted = changes.write(connection)
    if durable:
        transport.announce(connection, transport.enqueue(connection, [*enqueue, *counted.to_place]))


class _LinkRow(NamedTuple):
    """Who waits for a step: another step, or another run."""

    step_id: int
    child_id: int | None
    run_id: str | None


@dataclass(slots=True)
class _Links:
    """Who waits for steps: children (parent, child), and other runs."""

    edges: list[tuple[int, int]] = field(default_factory=list)
    joined: dict[int, list[str]] = field(default_factory=dict)


def _links(connection: Connection[TupleRow], steps: Sequence[MovedStep]) -> _Links:
    links = _Links()
    if steps:
        for link in fetch_all(connection, _LinkRow, "ledger/links", {"steps": [step.id for step in steps]}):
            if link.child_id is not None:
                links.edges.append((link.step_id, link.child_id))
            elif link.run_id is not None:
                links.joined.setdefault(link.step_id, []).append(link.run_id)
    return links
