"""Connections for people who watch: few, read-only, and with a timeout.

Whatever a page asks, it cannot write, it cannot take connections from the workers, and it does not wait for longer
than a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from flowstone.errors import DatabaseError, QuestionTooSlowError
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

MAX_SECONDS = 3.0
"""How long one statement may take; `database/limit_reading` says the same."""
_CONNECTIONS = 4
_TIMEOUT = "57014"


class ReadingDatabase(Database):
    """The same database over connections whose transactions are read-only.

    Within `snapshot` all questions of a thread (or task) share one transaction and see one state; without it each
    question has its own.

    Args:
        database: the database, whose tables are known to fit.
        max_size: most connections at once.
    """

    def __init__(self, database: Database, *, max_size: int = _CONNECTIONS) -> None:
        super().__init__(
            database.dsn, project=database.project, max_size=max_size, application_name="flowstone reading"
        )
        self._checked = database
        self._snapshot: ContextVar[Connection[TupleRow] | None] = ContextVar("flowstone_snapshot", default=None)

    @property
    def durable(self) -> bool:
        """Whether work can be placed on Oban's queue there."""
        return self._checked.durable

    @property
    def queue_problem(self) -> str | None:
        """Why it cannot, when it cannot."""
        return self._checked.queue_problem

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have all questions of this thread see one state of the data."""
        if self._snapshot.get() is not None:
            yield
            return
        _ = self._checked.durable  # raises when the tables do not fit
        with super().connection() as connection:
            _begin(connection)
            token = self._snapshot.set(connection)
            try:
                yield
            finally:
                self._snapshot.reset(token)
                _end(connection)

    @contextmanager
    def connection(self) -> Iterator[Connection[TupleRow]]:
        """Give the connection of the snapshot, or one with a read-only transaction of its own.

        Raises:
            QuestionTooSlowError: a statement took too long.
            DatabaseError: it would write.
        """
        with self.snapshot():
            connection = self._snapshot.get()
            assert connection is not None
            with self._naming_lost_servers(connection), _within_limits(connection):
                yield connection


@contextmanager
def _within_limits(connection: Connection[TupleRow]) -> Iterator[None]:
    """Name what a page may not do; after any error of the server go on with a new transaction."""
    from psycopg import errors
    from psycopg.pq import TransactionStatus

    try:
        yield
    except errors.lookup(_TIMEOUT) as error:
        raise QuestionTooSlowError(MAX_SECONDS) from error
    except errors.ReadOnlySqlTransaction as error:
        raise DatabaseError("This connection only reads: pages change things through actions.") from error
    finally:
        if connection.info.transaction_status is TransactionStatus.INERROR:
            _end(connection)
            _begin(connection)


def _begin(connection: Connection[TupleRow]) -> None:
    # in one round trip
    connection.execute(load_sql("database/begin_reading") + load_sql("database/limit_reading"))


def _end(connection: Connection[TupleRow]) -> None:
    if not connection.closed:
        connection.execute(load_sql("database/end_reading"))
