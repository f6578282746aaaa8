"""The steps below those that ended: released, failed, or skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowstone.core.state import State
from flowstone.stores.postgres.rows import MovedStep, ReleasedStep
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
        touched: runs with a window, or paused, of which steps may start.
        ended: steps that are over.
    """

    ready: list[int] = field(default_factory=list)
    to_enqueue: list[int] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    ended: list[MovedStep] = field(default_factory=list)

    def released(self, steps: Iterable[ReleasedStep]) -> None:
        """Take note of steps that lost inputs to wait for."""
        for step in steps:
            if step.state is State.WAITING:
                continue
            if step.job_id is not None:
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
) -> Children:
    """Pass an end on to everything below, however far.

    Args:
        connection: with the transaction in which they ended.
        edges: (parent, child) of those that have children.
        ended: steps that ended, with their states.
        deciding: those of them that chose their branches.

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
    _release(connection, [child for parent, child in edges if ended[parent] is State.COMPLETED], found)
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


def _release(connection: Connection[TupleRow], children: list[int], found: Children) -> None:
    """Count inputs down."""
    if children:
        counts = Counter(children)
        parameters = {"children": list(counts), "inputs": list(counts.values())}
        found.released(fetch_all(connection, ReleasedStep, "ledger/release", parameters))


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
