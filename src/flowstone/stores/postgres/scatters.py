"""Items that steps discover, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowstone.core.output import StoredOutput
from flowstone.core.scattering import (
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
from flowstone.stores.postgres import transport
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import to_json
from flowstone.stores.postgres.sql import load_sql
from flowstone.stores.postgres.transactions import in_transaction

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

        def begin(connection: Connection[TupleRow]) -> tuple[Any, ...] | None:
            row = connection.execute(load_sql("scatters/begin"), parameters).fetchone()
            if row is None:
                return None
            blocked = connection.execute(load_sql("scatters/blocked"), {"step_id": step_id}).fetchone()
            return (*row, bool(blocked and blocked[0]))

        found = in_transaction(self._database, begin)
        if found is None:
            return None
        priority, queue, limits, durable, partition, previous, is_blocked = found
        return OpenScatter(
            new=new,
            run_id=items_run(step_id),
            step_id=step_id,
            token=token,
            parent_key=partition,
            queue=queue if new.follows_queue else new.queue,
            priority=priority if new.priority is None else new.priority,
            max_attempts=new.max_attempts if durable or new.repeats else 1,
            limits=new.limits_with(limits),
            durable=durable,
            previous=self.of_run(previous) if previous is not None else None,
            is_blocked=is_blocked,
        )

    def add(self, scatter: OpenScatter, items: Sequence[NewItem]) -> bool | None:
        return in_transaction(self._database, lambda connection: _add(connection, scatter, items))

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, ScatterRecord]:
        rows = self._rows("of_steps", {"steps": list(step_ids)})
        return {row[1]: _record(row) for row in rows}

    def of_run(self, run_id: str) -> ScatterRecord | None:
        rows = self._rows("of_run", {"run_id": run_id})
        return _record(rows[0]) if rows else None

    def items(self, step_ids: Sequence[int]) -> dict[int, str]:
        return dict(self._rows("items", {"steps": list(step_ids)}))

    def page(self, run_id: str, *, after: int, limit: int, states: Collection[State]) -> list[ItemRow]:
        parameters = {"run_id": run_id, "after": after, "limit": limit, "states": [str(one) for one in states]}
        return [
            ItemRow(
                position=row[0],
                step_id=row[1],
                partition=row[2],
                item=row[3],
                state=State(row[4]),
                attempt=row[5],
                stored=StoredOutput.from_json(row[6], row[7]) if row[6] else None,
                error=row[8],
                error_type=row[9],
            )
            for row in self._rows("page", parameters)
        ]

    def counts(self, run_id: str) -> ItemCounts:
        return ItemCounts({State(state): number for state, number in self._rows("counts", {"run_id": run_id})})

    def _rows(self, name: str, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        with self._database.connection() as connection:
            return connection.execute(load_sql(f"scatters/{name}"), parameters).fetchall()


def _record(row: Sequence[Any]) -> ScatterRecord:
    return ScatterRecord(
        run_id=row[0],
        step_id=row[1],
        is_open=row[2],
        is_over=row[3],
        total=row[4],
        allowed=row[5],
        inputs=tuple(InputVersion(*one) for one in row[6] or ()),
    )


def _add(connection: Connection[TupleRow], scatter: OpenScatter, items: Sequence[NewItem]) -> bool | None:
    place = {"run_id": scatter.run_id, "step_id": scatter.step_id, "token": scatter.token}
    row = connection.execute(load_sql("scatters/lock"), place).fetchone()
    if row is None:
        return None
    room, is_paused, is_exceeded = row
    if is_exceeded:
        return False
    fresh = _not_known(connection, scatter, items)
    if fresh:
        _insert(connection, scatter, fresh, room=0 if is_paused or not scatter.durable else room)
    return True


def _not_known(connection: Connection[TupleRow], scatter: OpenScatter, items: Sequence[NewItem]) -> list[NewItem]:
    """Return the items that are new; note of the others that they were found again."""
    parameters = {
        "positions": [one.position for one in items],
        "partitions": [one.partition for one in items],
        "asset": scatter.new.asset,
        "run_id": scatter.run_id,
    }
    known = connection.execute(load_sql("scatters/known"), parameters).fetchall()
    seen: set[str] = set()
    doubled = {position for position, _, token in known if token == scatter.token}
    for one in items:
        if one.position in doubled or one.partition in seen:
            raise LookupError(one.position)
        seen.add(one.partition)
    if not known:
        return list(items)
    steps, positions = [step_id for _, step_id, _ in known], [position for position, _, _ in known]
    again = {"steps": steps, "positions": positions, "token": scatter.token}
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
        "limits": to_json(scatter.limits) if scatter.limits else None,
        "token": scatter.token,
    }
    rows = connection.execute(load_sql("scatters/insert_items"), parameters).fetchall()
    placed = [step_id for step_id, job_id, _ in rows if job_id is not None]
    opened = sum(is_open for _, _, is_open in rows)
    counts = {"run_id": scatter.run_id, "opened": opened, "placed": len(placed)}
    connection.execute(load_sql("scatters/count_added"), counts)
    transport.announce(connection, transport.enqueue(connection, placed))
