"""Cancelling the items of runs that have no purpose any more, a batch in each transaction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, LiteralString

from flowstone.core.state import State
from flowstone.stores.postgres import deciding
from flowstone.stores.postgres.counting import Follow
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.following import follow_up
from flowstone.stores.postgres.sql import load_sql
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

    def stop(statement: LiteralString, connection: Connection[TupleRow]) -> int:
        rows = connection.execute(statement, {"runs": list(stopping.runs), "limit": _BATCH}).fetchall()
        return _cancel(connection, [row[0] for row in rows], durable=database.durable)

    stopped = 0
    if stopping.items:
        gone = list(stopping.items)
        stopped = in_transaction(database, lambda connection: _cancel(connection, gone, durable=database.durable))
    # first what nobody works on, so that it does not begin meanwhile
    for name in ("scatters/unplaced_items", "scatters/open_items"):
        work = partial(stop, load_sql(name))
        while stopping.runs and (number := in_transaction(database, work)):
            stopped += number
    return stopped


def stop_left(database: Database) -> int:
    """Cancel what a process was about to cancel when it died; return how many items."""
    with database.connection() as connection:
        runs = {row[0] for row in connection.execute(load_sql("scatters/stopping"))}
    return stop_items(database, Stopping(runs)) if runs else 0


def _cancel(connection: Connection[TupleRow], items: Sequence[int], *, durable: bool) -> int:
    if not items:
        return 0
    steps = {"ids": list(items)}
    if durable:
        # workers lock the job before the step
        connection.execute(load_sql("ledger/job_of_step"), steps)
    rows = connection.execute(load_sql("ledger/cancel_steps"), steps).fetchall()
    over = [row for row in rows if row[2] == State.CANCELLED]
    deciding.cancel(connection, [row[0] for row in over if row[5]], durable=durable)
    ended = [Follow(row[0], row[1], State(row[2]), row[3], limits=row[4]) for row in over]
    follow_up(connection, ended, {}, durable=durable)
    return len(rows)
