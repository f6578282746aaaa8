"""Cancelling the items of runs that have no purpose any more, a batch in each transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from flowstone.core.state import State
from flowstone.stores.postgres import deciding
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.following import propagate
from flowstone.stores.postgres.rows import CancelledStep
from flowstone.stores.postgres.sql import fetch_all, fetch_column, load_sql
from flowstone.stores.postgres.sub_runs import Stopping
from flowstone.stores.postgres.transactions import in_transaction

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

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
    deciding.cancel(connection, [step.id for step in over if step.had_requested], durable=durable)
    propagate(connection, [step.moved for step in over], {}, durable=durable)
    return len(cancelled)
