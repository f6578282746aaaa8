"""Items that steps discover, in PostgreSQL, and cancelling those of runs that have no purpose any more.

Items are written and cancelled in batches, each a transaction: a scatter may have millions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone import telemetry
from flowstone.core.limits import parse_limits, stored_limits
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.scatter import (
    SCATTER_KIND,
    ItemCounts,
    ItemRow,
    NewItem,
    NewScatter,
    OpenScatter,
    ScatterRecord,
    items_run,
)
from flowstone.core.state import State
from flowstone.core.step import InputVersion
from flowstone.protocols import ScatterStore
from flowstone.sql import load_sql
from flowstone.stores.postgres import approvals, oban_jobs
from flowstone.stores.postgres.commit import propagate
from flowstone.stores.postgres.counters import Stopping
from flowstone.stores.postgres.database import Database, in_transaction, note_ended
from flowstone.stores.postgres.rows import CancelledStep, to_json
from flowstone.stores.postgres.sql import fetch_all, fetch_column, fetch_one, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


class PostgresScatters(ScatterStore):
    """Implements `flowstone.protocols.ScatterStore` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, step_id: int, token: int, new: NewScatter) -> OpenScatter | None:
        parameters = {
            "step_id": step_id,
            "token": token,
            "run_id": items_run(step_id),
            "kind": SCATTER_KIND,
            "selection": new.selection,
            "max_concurrency": new.max_concurrency,
            "allowed": new.max_failures,
        }

        def begin(connection: Connection[TupleRow]) -> tuple[_ScatteringStep, bool] | None:
            step = fetch_one(connection, _ScatteringStep, "scatters/begin", parameters)
            if step is None:
                return None
            return step, bool(fetch_value(connection, bool, "scatters/blocked", {"step_id": step_id}))

        found = in_transaction(self._database, begin)
        if found is None:
            return None
        step, is_blocked = found
        return OpenScatter(
            new=new,
            run_id=items_run(step_id),
            step_id=step_id,
            token=token,
            parent_key=step.partition_key,
            queue=step.queue if new.follows_queue else new.queue,
            priority=step.priority if new.priority is None else new.priority,
            max_attempts=new.max_attempts if step.durable or new.repeats else 1,
            limits=new.limits_with(parse_limits(step.limits)),
            durable=step.durable,
            previous=self.of_run(step.previous) if step.previous is not None else None,
            is_blocked=is_blocked,
        )

    def add(self, scatter: OpenScatter, items: Sequence[NewItem]) -> bool | None:
        return in_transaction(self._database, lambda connection: _add(connection, scatter, items))

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, ScatterRecord]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _ScatterRow, "scatters/of_steps", {"steps": list(step_ids)})
        return {row.step_id: row.record() for row in rows}

    def of_run(self, run_id: str) -> ScatterRecord | None:
        with self._database.connection() as connection:
            row = fetch_one(connection, _ScatterRow, "scatters/of_run", {"run_id": run_id})
        return None if row is None else row.record()

    def items(self, step_ids: Sequence[int]) -> dict[int, str]:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _ItemText, "scatters/items", {"steps": list(step_ids)})
        return {row.step_id: row.item for row in rows}

    def page(self, run_id: str, *, after: int, limit: int, states: Collection[State]) -> list[ItemRow]:
        parameters = {"run_id": run_id, "after": after, "limit": limit, "states": [str(one) for one in states]}
        with self._database.connection() as connection:
            return [row.with_value() for row in fetch_all(connection, _StoredItem, "scatters/page", parameters)]

    def counts(self, run_id: str) -> ItemCounts:
        with self._database.connection() as connection:
            rows = fetch_all(connection, _StateCount, "scatters/counts", {"run_id": run_id})
        return ItemCounts({row.state: row.number for row in rows})


class _ScatteringStep(NamedTuple):
    """A step that discovers items: a row of `scatters/begin`.

    Args:
        priority: its priority.
        queue: its queue.
        limits: its fleet-wide limits.
        durable: whether its run is on the queue.
        partition_key: its encoded partition.
        previous: the run of the items whose failures it repeats.
    """

    priority: int
    queue: str
    limits: dict[str, int | str] | None
    durable: bool
    partition_key: PartitionKey
    previous: str | None


class _ScatterRow(NamedTuple):
    """A scatter; see `ScatterRecord`."""

    run_id: str
    step_id: int
    is_open: bool
    is_over: bool
    total: int | None
    allowed: int | None
    inputs: list[list[Any]] | None

    def record(self) -> ScatterRecord:
        """Return the record; the table keeps inputs as lists."""
        return ScatterRecord(
            run_id=self.run_id,
            step_id=self.step_id,
            is_open=self.is_open,
            is_over=self.is_over,
            total=self.total,
            allowed=self.allowed,
            inputs=tuple(InputVersion._make(one) for one in self.inputs or ()),
        )


class _StoredItem(NamedTuple):
    """An item, with the description of its value and the value itself; see `ItemRow`."""

    position: int
    step_id: int
    partition_key: PartitionKey
    item: str
    state: State
    attempt: int
    output: dict[str, JsonValue] | None
    payload: bytes | None
    error: str | None
    error_type: str | None

    def with_value(self) -> ItemRow:
        """Return the item with its value."""
        return ItemRow(
            position=self.position,
            step_id=self.step_id,
            partition_key=self.partition_key,
            item=self.item,
            state=self.state,
            attempt=self.attempt,
            stored=StoredOutput.from_json(self.output, self.payload) if self.output else None,
            error=self.error,
            error_type=self.error_type,
        )


class _ItemText(NamedTuple):
    """The text of the item that a step computes."""

    step_id: int
    item: str


class _StateCount(NamedTuple):
    """How many items are in a state."""

    state: State
    number: int


class _LockedRun(NamedTuple):
    """The run of items while some are added to it.

    Args:
        room: how many more may be placed.
        is_paused: whether it is paused.
        is_exceeded: whether more items failed than may.
    """

    room: int
    is_paused: bool
    is_exceeded: bool


class _KnownItem(NamedTuple):
    """An item that was found before, by an earlier attempt or by the one with this token."""

    position: int
    step_id: int
    token: int


class _AddedItem(NamedTuple):
    """An item that was added; it is over at once when an earlier run has its value."""

    id: int
    job_id: int | None
    is_open: bool


def _add(connection: Connection[TupleRow], scatter: OpenScatter, items: Sequence[NewItem]) -> bool | None:
    place = {"run_id": scatter.run_id, "step_id": scatter.step_id, "token": scatter.token}
    run = fetch_one(connection, _LockedRun, "scatters/lock", place)
    if run is None:
        return None
    if run.is_exceeded:
        return False
    fresh = _not_known(connection, scatter, items)
    if fresh:
        _insert(connection, scatter, fresh, room=0 if run.is_paused or not scatter.durable else run.room)
    return True


def _not_known(connection: Connection[TupleRow], scatter: OpenScatter, items: Sequence[NewItem]) -> list[NewItem]:
    """Return the items that are new; note of the others that they were found again."""
    parameters = {
        "positions": [one.position for one in items],
        "partitions": [one.partition_key for one in items],
        "asset": scatter.new.asset,
        "run_id": scatter.run_id,
    }
    known = fetch_all(connection, _KnownItem, "scatters/known", parameters)
    seen: set[str] = set()
    doubled = {one.position for one in known if one.token == scatter.token}
    for one in items:
        if one.position in doubled or one.partition_key in seen:
            raise LookupError(one.position)
        seen.add(one.partition_key)
    if not known:
        return list(items)
    positions = [one.position for one in known]
    again = {"steps": [one.step_id for one in known], "positions": positions, "token": scatter.token}
    connection.execute(load_sql("scatters/find_again"), again)
    found = set(positions)
    return [one for one in items if one.position not in found]


def _insert(
    connection: Connection[TupleRow], scatter: OpenScatter, items: Sequence[NewItem], *, room: int
) -> None:
    parameters = {
        "items": to_json([one._asdict() for one in items]),
        "asset": scatter.new.asset,
        "run_id": scatter.run_id,
        "previous": scatter.previous.run_id if scatter.previous else None,
        "priority": scatter.priority,
        "queue": scatter.queue,
        "max_attempts": scatter.max_attempts,
        "room": room,
        "code_version": scatter.new.code_version,
        "limits": to_json(stored_limits(scatter.limits)) if scatter.limits else None,
        "token": scatter.token,
    }
    added = fetch_all(connection, _AddedItem, "scatters/insert_items", parameters)
    placed = [one.id for one in added if one.job_id is not None]
    opened = sum(one.is_open for one in added)
    counts = {"run_id": scatter.run_id, "opened": opened, "placed": len(placed), "total": len(added)}
    connection.execute(load_sql("scatters/count_added"), counts)
    oban_jobs.place(connection, placed)


_BATCH = 5000


def stop_items(database: Database, stopping: Stopping) -> int:
    """Cancel items: those that have not started are over, those that run are signalled.

    Args:
        database: where.
        stopping: which.

    Returns:
        How many.
    """

    some = {"runs": list(stopping.runs), "limit": _BATCH}

    def stop(find: Callable[[Connection[TupleRow]], list[int]]) -> int:
        return in_transaction(
            database, lambda connection: _cancel(connection, find(connection), durable=database.durable)
        )

    def unplaced(connection: Connection[TupleRow]) -> list[int]:
        return fetch_column(connection, int, "scatters/unplaced_items", some)

    def left(connection: Connection[TupleRow]) -> list[int]:
        return fetch_column(connection, int, "scatters/open_items", some)

    stopped = stop(lambda _: stopping.items)
    # first what nobody works on, so that it does not begin meanwhile
    for find in (unplaced, left):
        while stopping.runs and (number := stop(find)):
            stopped += number
    return stopped


def stop_left(database: Database) -> int:
    """Cancel what a process was about to cancel when it died; return how many items."""
    with database.connection() as connection:
        runs = fetch_column(connection, str, "scatters/stopping")
    return stop_items(database, Stopping(set(runs))) if runs else 0


def _cancel(connection: Connection[TupleRow], items: Sequence[int], *, durable: bool) -> int:
    if not items:
        return 0
    steps = {"ids": list(items)}
    if durable:
        # workers lock the job before the step
        connection.execute(load_sql("ledger/job_of_step"), steps)
    cancelled = fetch_all(connection, CancelledStep, "ledger/cancel_steps", steps)
    over = [step for step in cancelled if step.state is State.CANCELLED]
    if telemetry.listening():
        note_ended([step.event() for step in over])
    approvals.cancel(connection, [step.id for step in over if step.had_requested], durable=durable)
    propagate(connection, [step.moved for step in over], {}, durable=durable)
    return len(cancelled)
