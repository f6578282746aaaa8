"""Placing runs inside a transaction of the caller's: they exist exactly if that transaction commits.

The connection is looked at, never changed: our statements go through cursors of our own, which ignore its row
factory and its adapters, prepare nothing, and name every schema; a savepoint lets them be undone alone. Nothing of
the caller's is committed or rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from flowstone.core.project import Project
from flowstone.errors import DatabaseError, OptionsError
from flowstone.protocols import CallerLoop
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import fetch_one

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_TAKES = (
    "Pass a connection of psycopg (Connection, AsyncConnection), or of SQLAlchemy on the driver psycopg "
    "(Connection, Session, AsyncConnection, AsyncSession)"
)


class Identity(NamedTuple):
    """What shows whether two connections see the same database, and whether one may write."""

    database: int
    server_started: datetime
    runs: int | None
    is_read_only: bool

    def same(self, other: Identity) -> bool:
        """Whether both are connections to one database."""
        return self._replace(is_read_only=other.is_read_only) == other


class CallerDatabase:
    """Stands in for a `Database` where runs are placed, on the one connection of the caller's.

    Args:
        given: the connection.
        database: the database of the app, which must be the same.
        caller: the loop on which the caller waits, for connections that are awaited.

    Raises:
        OptionsError: nothing can be placed on this connection; says why and what to pass.
    """

    def __init__(self, given: object, database: Database, caller: CallerLoop | None) -> None:
        self._connection = _connection(given, database.project, caller)
        self._masked = database.masked_dsn
        self._check(database)

    @property
    def durable(self) -> bool:
        """Whether work can be placed on Oban's queue here; the caller of this has checked."""
        return True

    @contextmanager
    def connection(self) -> Iterator[Connection[TupleRow]]:
        """Yield the connection."""
        yield cast("Connection[TupleRow]", self._connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection[TupleRow]]:
        """Yield the connection inside a savepoint, to which an exception rolls back."""
        import psycopg

        statements = self._connection
        statements.execute("SAVEPOINT flowstone_placing")
        try:
            yield cast("Connection[TupleRow]", statements)
        except BaseException as error:
            statements.undo()
            if isinstance(error, psycopg.errors.SerializationFailure):
                raise DatabaseError(
                    "connection=: your transaction sees the tables as they were when it began, and others "
                    f"have changed them since ({error}). Roll it back and begin it again, or use READ COMMITTED."
                ) from error
            if isinstance(error, psycopg.errors.InsufficientPrivilege):
                raise DatabaseError(
                    f"connection=: its role may not write FlowStone's tables ({error}). Grant it the role that "
                    "owns them, or place the run after the commit."
                ) from error
            raise
        statements.execute("RELEASE SAVEPOINT flowstone_placing")

    def _check(self, database: Database) -> None:
        import psycopg

        try:
            theirs = self._identity(self._connection)
        except psycopg.Error as error:
            raise _refused(f"it cannot be used: {' '.join(str(error).split())}", "Pass one that works.") from error
        with database.connection() as connection:
            ours = self._identity(connection)
        if not theirs.same(ours):
            raise _refused(
                f"it leads to another database than the app's ({self._masked}), which would not know the run",
                "Pass a connection to the database of the app, or build the app with database_url= of that one.",
            )
        if theirs.is_read_only:
            raise _refused("its transaction is read-only", "Begin one that may write.")

    def _identity(self, connection: Any) -> Identity:
        found = fetch_one(connection, Identity, "database/identity")
        assert found is not None
        return found


class _Cursor:
    """Stands in for a cursor of psycopg: what a statement returns is read at once.

    Args:
        statements: the connection.
        row_factory: what a row is made into; tuples when None.
    """

    def __init__(self, statements: _Statements, row_factory: Any = None) -> None:
        self._statements = statements
        self._row_factory = row_factory
        self._rows: Iterator[Any] = iter(())
        self.rowcount = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def execute(self, query: Any, parameters: Any = None) -> Self:
        rows, self.rowcount = self._statements.run(query, parameters, self._row_factory)
        self._rows = iter(rows)
        return self

    def executemany(self, query: Any, several: Any) -> None:
        for parameters in several:
            self.execute(query, parameters)

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)


class _Statements:
    """Runs our statements on a connection of psycopg, awaited or not.

    Args:
        connection: the connection.
        project: whose tables the statements mean.
        caller: the loop of the connection, when its methods are awaited.
    """

    def __init__(self, connection: Any, project: Project, caller: CallerLoop | None) -> None:
        self._connection = connection
        self._project = project
        self._caller = caller

    def cursor(self, *, row_factory: Any = None) -> _Cursor:
        return _Cursor(self, row_factory)

    def execute(self, query: Any, parameters: Any = None) -> _Cursor:
        return self.cursor().execute(query, parameters)

    def run(self, query: Any, parameters: Any, row_factory: Any) -> tuple[Sequence[Any], int]:
        """Run a statement; return its rows and their number."""
        text = self._project.sql(query)
        if self._caller is None:
            cursor = _cursors()[0](self._connection, row_factory)
            cursor.execute(text, parameters, prepare=False)
            return cursor.fetchall() if cursor.description else (), cursor.rowcount

        async def run() -> tuple[Sequence[Any], int]:
            cursor = _cursors()[1](self._connection, row_factory)
            await cursor.execute(text, parameters, prepare=False)
            return await cursor.fetchall() if cursor.description else (), cursor.rowcount

        return self._caller.run(run())

    def undo(self) -> None:
        """Roll back to the savepoint, as far as the connection still works."""
        if self._connection.closed:
            return
        if self._caller is not None:
            self._caller = CallerLoop(self._caller.loop)  # the caller waits until this is undone
        self.execute("ROLLBACK TO SAVEPOINT flowstone_placing")
        self.execute("RELEASE SAVEPOINT flowstone_placing")


@cache
def _cursors() -> tuple[type[Any], type[Any]]:
    """Return cursors that leave the connection's own settings aside: types are psycopg's."""
    from psycopg import AsyncCursor, Cursor, adapters
    from psycopg.adapt import AdaptersMap
    from psycopg.rows import tuple_row

    class PlainCursor(Cursor[Any]):
        def __init__(self, connection: Any, row_factory: Any) -> None:
            super().__init__(connection, row_factory=row_factory or tuple_row)
            self._adapters = AdaptersMap(adapters)

    class PlainAsyncCursor(AsyncCursor[Any]):
        def __init__(self, connection: Any, row_factory: Any) -> None:
            super().__init__(connection, row_factory=row_factory or tuple_row)
            self._adapters = AdaptersMap(adapters)

    return PlainCursor, PlainAsyncCursor


def _connection(given: object, project: Project, caller: CallerLoop | None) -> _Statements:
    """Return the connection that was meant, when a transaction can be joined on it."""
    from psycopg import AsyncConnection, Connection

    found = _unwrapped(given, caller)
    if not isinstance(found, Connection | AsyncConnection):
        raise _refused(_what(given, found), f"{_TAKES}.")
    is_awaited = isinstance(found, AsyncConnection)
    if is_awaited and caller is None:
        raise _refused(
            "its methods have to be awaited, and this call is not",
            "Write: await flow.aio.schedule(..., connection=connection).",
        )
    _check_status(found)
    return _Statements(found, project, caller if is_awaited else None)


def _check_status(connection: Any) -> None:
    from psycopg.pq import TransactionStatus

    if connection.closed:
        raise _refused("it is closed", "Pass an open one, inside the transaction that the run is to be part of.")
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise _refused(
            "its transaction has failed, so nothing of it can be committed", "Roll it back and begin another one."
        )
    if status == TransactionStatus.ACTIVE:
        raise _refused("it is busy with another statement", "Use one connection for one thing at a time.")
    if status == TransactionStatus.IDLE and connection.autocommit:
        raise _refused(
            "it is in autocommit mode and no transaction is open that the run could be part of",
            "Open one: with connection.transaction(): ...; or leave connection= out.",
        )


def _unwrapped(given: object, caller: CallerLoop | None) -> object:
    """Return psycopg's connection out of one of SQLAlchemy, whose transaction is begun as any statement does."""
    names = {one.__name__ for one in type(given).__mro__ if one.__module__.partition(".")[0] == "sqlalchemy"}
    if not names:
        return given
    alchemy: Any = given
    is_awaited = bool(names & {"AsyncSession", "AsyncConnection", "async_scoped_session"})
    if not is_awaited and not names & {"Connection", "Session", "scoped_session"}:
        return given
    if is_awaited and caller is None:
        raise _refused(
            "its methods have to be awaited, and this call is not",
            "Write: await flow.aio.schedule(..., connection=session).",
        )
    is_session = bool(names & {"Session", "AsyncSession", "scoped_session", "async_scoped_session"})

    async def find() -> object:
        connection = await alchemy.connection() if is_session else alchemy
        await connection.exec_driver_sql("SELECT 1")
        return (await connection.get_raw_connection()).driver_connection

    try:
        if is_awaited:
            assert caller is not None
            return caller.run(find())
        connection = alchemy.connection() if is_session else alchemy
        connection.exec_driver_sql("SELECT 1")
        return connection.connection.driver_connection
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise _refused(
            f"{type(error).__name__}: {reason}",
            "Pass one that works, inside the transaction that the run is part of.",
        ) from error


def _what(given: object, found: object) -> str:
    kind = type(given)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if found is not given:
        driver = type(found)
        return (
            f"its driver is {driver.__module__.partition('.')[0]!r}, and transactions are joined on psycopg only"
        )
    if kind.__module__.partition(".")[0] == "django":
        return f"a {name} wraps the connection: pass its attribute `connection`, inside transaction.atomic()"
    if hasattr(given, "begin") or hasattr(given, "getconn"):
        return f"a {name} hands connections out and is none itself"
    if hasattr(given, "connection") and hasattr(given, "fetchone"):
        return f"a {name} is a cursor; its connection is cursor.connection"
    return f"{name} is no connection that it knows"


def _refused(why: str, remedy: str) -> OptionsError:
    return OptionsError(f"connection=: {why}. {remedy}")
