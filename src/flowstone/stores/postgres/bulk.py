"""What people do to many runs at once, by statement, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import batched
from typing import TYPE_CHECKING

from flowstone.core.run_filter import RunFilter
from flowstone.core.state import State
from flowstone.protocols import BulkActions
from flowstone.sql import load_sql
from flowstone.stores.postgres import oban_jobs, placing, runs
from flowstone.stores.postgres.audit import note
from flowstone.stores.postgres.counters import Stopping, refill
from flowstone.stores.postgres.database import Database, in_transaction
from flowstone.stores.postgres.ledger import cancel_steps
from flowstone.stores.postgres.scatters import stop_items
from flowstone.stores.postgres.sql import fetch_column, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_RUNS = 100
"""Runs of one transaction."""


class PostgresBulkActions(BulkActions):
    """Implements `flowstone.protocols.BulkActions` on PostgreSQL.

    Args:
        database: where.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def matching(self, requested: RunFilter, now: datetime, *, limit: int) -> list[str]:
        with self._database.connection() as connection:
            return runs.matching(connection, requested, now, limit=limit)

    def cancel_runs(self, run_ids: Sequence[str], details: Mapping[str, object]) -> list[int]:
        running: list[int] = []
        for number, some in enumerate(batched(sorted(run_ids), _RUNS)):
            stopping = Stopping()
            first = number == 0

            def cancel(
                connection: Connection[TupleRow],
                some: Sequence[str] = some,
                stopping: Stopping = stopping,
                first: bool = first,
            ) -> list[int]:
                if first:
                    note(connection, "runs.cancelled", "runs", details)
                return self._cancel(connection, some, stopping)

            running += in_transaction(self._database, cancel)
            if stopping:
                stop_items(self._database, stopping)
        return running

    def cancel_steps(self, run_id: str, step_ids: Sequence[int], details: Mapping[str, object]) -> list[int]:
        stopping = Stopping()

        def cancel(connection: Connection[TupleRow]) -> list[int]:
            durable = self._database.durable
            cancelled = cancel_steps(connection, list(step_ids), stopping, durable=durable)
            note(connection, "steps.cancelled", f"run:{run_id}", {"steps": len(cancelled), **details})
            return [step.id for step in cancelled if step.state is State.CANCELLING]

        running = in_transaction(self._database, cancel)
        if stopping:
            stop_items(self._database, stopping)
        return running

    def set_priority(self, run_ids: Sequence[str], priority: int, details: Mapping[str, object]) -> int:
        changed = 0
        for number, some in enumerate(batched(sorted(run_ids), _RUNS)):
            first = number == 0

            def change(connection: Connection[TupleRow], some: Sequence[str] = some, first: bool = first) -> int:
                if first:
                    one = len(run_ids) == 1
                    subject = f"run:{some[0]}" if one else "runs"
                    action = "run.prioritized" if one else "runs.prioritized"
                    note(connection, action, subject, {"priority": priority, **details})
                parameters = {"runs": list(some), "priority": priority}
                if self._database.durable:
                    connection.execute(load_sql("bulk/prioritize_jobs"), parameters)
                connection.execute(load_sql("bulk/prioritize_steps"), parameters)
                connection.execute(load_sql("bulk/prioritize_ranges"), parameters)
                return len(fetch_column(connection, str, "bulk/prioritize_runs", parameters))

            changed += in_transaction(self._database, change)
        return changed

    def set_window(self, run_id: str, window: int) -> bool:
        def change(connection: Connection[TupleRow]) -> bool:
            parameters = {"run_id": run_id, "window": window}
            room = fetch_value(connection, int, "bulk/set_window", parameters)
            if room is None:
                return False
            note(connection, "run.window_set", f"run:{run_id}", {"window": window})
            if room and self._database.durable:
                placed = refill(connection, run_id, room)
                oban_jobs.place(connection, placed, queues=oban_jobs.range_queues(connection, [run_id]))
            return True

        return in_transaction(self._database, change)

    def _cancel(self, connection: Connection[TupleRow], some: Sequence[str], stopping: Stopping) -> list[int]:
        """Cancel some runs; return their steps that are running."""
        named = {"runs": list(some)}
        durable = self._database.durable
        steps = fetch_column(connection, int, "bulk/open_steps", named)
        for run_id in fetch_column(connection, str, "bulk/with_ranges", named) if durable else ():
            placing.cancel(connection, run_id)
        cancelled = cancel_steps(connection, steps, stopping, durable=durable)
        # the runs after their steps, as everyone locks them
        connection.execute(load_sql("bulk/mark_cancelled"), named)
        return [step.id for step in cancelled if step.state is State.CANCELLING]
