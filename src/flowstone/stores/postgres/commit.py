"""What follows from steps that moved, in the same transaction.

`propagate` is the order of it: children are released, failed or skipped (`propagate_to_children`), runs of items
are closed, counters move, windows refill, jobs are enqueued, and who waits is notified. It is in one place because
each writer (commit, cancel, rescue, approvals) has the same things to do, and locks rows in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.state import State
from flowstone.stores.postgres import counters, limits, oban_jobs, outbox
from flowstone.stores.postgres.counters import CountedRuns, CounterChanges, Stopping
from flowstone.stores.postgres.here import BeginHere
from flowstone.stores.postgres.rows import MovedStep, ReleasedStep, to_ids
from flowstone.stores.postgres.sql import fetch_all

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


_NO_RESULT = (State.FAILED, State.CANCELLED, State.UPSTREAM_FAILED)


@dataclass(slots=True)
class Children:
    """The new states of the steps below some that ended.

    Args:
        ready: steps that may start, of runs that their callers drive.
        to_enqueue: steps that got a job.
        queues: where steps may begin that need none.
        touched: runs with a window, or paused, of which steps may start.
        ended: steps that are over.
    """

    ready: list[int] = field(default_factory=list)
    to_enqueue: list[int] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    ended: list[MovedStep] = field(default_factory=list)

    def released(self, steps: Iterable[ReleasedStep]) -> None:
        """Take note of steps that lost inputs to wait for."""
        for step in steps:
            if step.state is State.WAITING:
                continue
            if step.job_id == 0:
                self.queues.add(step.queue)
            elif step.job_id is not None and step.job_id < 0:
                continue  # it began with this commit, and needs no job
            elif step.job_id is not None:
                self.to_enqueue.append(step.id)
            elif step.durable:
                self.touched.add(step.run_id)
            else:
                self.ready.append(step.id)


def propagate_to_children(
    connection: Connection[TupleRow],
    edges: Sequence[tuple[int, int]],
    ended: Mapping[int, State],
    deciding: Collection[int] = (),
    here: BeginHere | None = None,
) -> Children:
    """Pass an end on to everything below, however far.

    Args:
        connection: with the transaction in which they ended.
        edges: (parent, child) of those that have children.
        ended: steps that ended, with their states.
        deciding: those of them that chose their branches.
        here: begins on this worker what is released, as far as it may.

    Returns:
        The new states of what is below.
    """
    found = Children()
    if not edges:
        return found
    parents = {parent for parent, _ in edges}
    skipped = [parent for parent in parents if ended[parent] is State.SKIPPED]
    if deciding:
        # first, so that what was not chosen never starts
        skipped += _leave_out(connection, [step for step in deciding if step in parents], found)
    _release(connection, [child for parent, child in edges if ended[parent] is State.COMPLETED], found, here)
    lost = [parent for parent in parents if ended[parent] in _NO_RESULT]
    if lost:
        _end_below(connection, lost, State.UPSTREAM_FAILED, found)
    if skipped:
        _skip_below(connection, skipped, found)
    return found


def _leave_out(connection: Connection[TupleRow], deciding: list[int], found: Children) -> list[int]:
    """Skip what was not chosen; return those steps."""
    left_out = fetch_all(connection, MovedStep, "ledger/leave_out", {"routers": deciding})
    found.ended += left_out
    return [step.id for step in left_out]


def _release(
    connection: Connection[TupleRow], children: list[int], found: Children, here: BeginHere | None
) -> None:
    """Count inputs down."""
    if not children:
        return
    counts = Counter(children)
    if here is not None:
        found.released(here.release(connection, counts))
    else:
        parameters = {"children": list(counts), "inputs": list(counts.values())}
        found.released(fetch_all(connection, ReleasedStep, "release", parameters))


def _end_below(connection: Connection[TupleRow], parents: list[int], state: State, found: Children) -> list[int]:
    """End everything that cannot do without steps that will never have a result; return what that ended."""
    parameters = {"parents": parents, "state": state}
    ended = fetch_all(connection, MovedStep, "ledger/fail_downstream", parameters)
    found.ended += ended
    return [step.id for step in ended]


def _skip_below(connection: Connection[TupleRow], skipped: list[int], found: Children) -> None:
    """Skip what cannot do without skipped steps, and let start what can, as long as one of its inputs is there."""
    while skipped:
        skipped = skipped + _end_below(connection, skipped, State.SKIPPED, found)
        steps = fetch_all(connection, ReleasedStep, "ledger/do_without", {"parents": skipped})
        over = [step for step in steps if step.state is State.SKIPPED]
        found.ended += [MovedStep(step.id, step.run_id, step.state, step.job_id) for step in over]
        found.released(step for step in steps if step.state is not State.SKIPPED)
        skipped = [step.id for step in over]


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
    here: BeginHere | None = None,
) -> list[int]:
    """Do everything that follows from steps that moved.

    Args:
        connection: with the transaction in which they moved.
        moved: the steps.
        delays: seconds until those that go on later.
        durable: whether there is a queue to keep in step.
        deciding: those among them that chose which of their branches run.
        scattered: what the steps among them say that discovered items, see `counters.scattered_rows`.
        stopping: learns which items are to be cancelled when this transaction is over; else the sweep does that.
        here: begins on this worker what is released, as far as it may, and knows what began.

    Returns:
        Steps of runs without a queue that may start now.
    """
    if not moved:
        return []
    finished = [step for step in moved if step.state.is_terminal]
    lost = [step.id for step in finished if step.state is not State.COMPLETED]
    resting = [step.id for step in moved if step.state is State.WAITING and step.id in (scattered or ())]
    # steps are locked before runs, by everybody
    children, changes = _propagate_ends(connection, finished, deciding, here)
    closing = counters.close(connection, resting, scattered or {})
    left, held = counters.left_behind(connection, lost)
    changes.close(closing.runs | dict.fromkeys(held, 1))
    changes.leave([step for step in moved if step.state is State.AWAITING_APPROVAL and step.job_id is not None])
    counted = changes.write(connection)
    if durable:
        enqueued = [*children.to_enqueue, *counted.to_place]
        _keep_queue_in_step(connection, moved, delays, enqueued, counted, children.queues)
        counters.rest(connection, resting)
    counters.mark_stopping(connection, [*left, *counted.exceeded], closing.gone, stopping)
    counters.release(connection, counted.runs, durable=durable)
    watch = outbox.under_way.get()
    if watch is not None and (lost or watch.recovers or watch.completes):
        _notify(connection, finished, children.ended, changes, counted)
    return children.ready


def _notify(
    connection: Connection[TupleRow],
    finished: Sequence[MovedStep],
    below: Sequence[MovedStep],
    changes: CounterChanges,
    counted: CountedRuns,
) -> None:
    """Decide on notifications for what ended: last, when all that it touches is locked."""
    if lost := [step.id for step in (*finished, *below) if step.state in _NO_RESULT]:
        outbox.note_lost(connection, lost)
    outbox.note_completed(connection, [step.id for step in finished if step.state is State.COMPLETED])
    over = [run.run_id for run in counted.runs if not run.open_steps]
    outbox.note_ended_runs(connection, [run_id for run_id in over if changes.runs[run_id]["finished"]])


def _propagate_ends(
    connection: Connection[TupleRow],
    finished: Sequence[MovedStep],
    deciding: Container[int],
    here: BeginHere | None,
) -> tuple[Children, CounterChanges]:
    """Pass the end of steps on to everything below them, and add up what ended."""
    links = _links(connection, finished)
    ended = {step.id: step.state for step in finished}
    routers = [step for step in ended if step in deciding]
    children = propagate_to_children(connection, links.edges, ended, routers, here)
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
    with_work: set[str],
) -> None:
    """Insert jobs, move those of steps that moved, and notify the nodes, also of work that needs no job."""
    queues = with_work | oban_jobs.range_queues(connection, counted.roomy)
    again = oban_jobs.draw_ids(connection, [step.id for step in moved if _was_in_range(step)])
    queues |= limits.release(connection, [step for step in moved if step.limits])
    settled = oban_jobs.settled_jobs(moved, delays)
    oban_jobs.place(connection, [*to_enqueue, *again], queues=queues, settled=settled)


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
        oban_jobs.place(connection, [*enqueue, *counted.to_place])


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
        for link in fetch_all(
            connection, _LinkRow, "ledger/links", {"steps": to_ids([step.id for step in steps])}
        ):
            if link.child_id is not None:
                links.edges.append((link.step_id, link.child_id))
            elif link.run_id is not None:
                links.joined.setdefault(link.step_id, []).append(link.run_id)
    return links
