"""The connection to PostgreSQL: with `dsn` and `listener` the only part that knows the driver.

`Database` is the pool; `in_transaction` repeats a transaction when the server asks for it, or when a plan went
stale.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import secrets
import selectors
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, LiteralString, Self

from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.core.insights.overview import PoolUse
from flowstone.core.job import StepId
from flowstone.core.project import Project
from flowstone.errors import (
    ConfigurationError,
    DatabaseError,
    DatabaseUnavailableError,
    PlanOutdatedError,
    SchemaVersionError,
)
from flowstone.sql import load_sql
from flowstone.stores.postgres.dsn import SECRETS, masked_dsn, parse_dsn
from flowstone.stores.postgres.listener import Listener
from flowstone.stores.postgres.outbox import Watch, under_way
from flowstone.stores.postgres.sql import fetch_value
from flowstone.telemetry import Event

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg import Connection, Cursor
    from psycopg.rows import TupleRow
    from psycopg.sql import Composed
    from psycopg_pool import ConnectionPool


_BUSY_SECONDS = 30.0
_CLOSE_SECONDS = 1.0
_PROBE_SECONDS = 1.0
# A peer that vanished without a word is noticed after about a minute instead of two hours.
_KEEPALIVES = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    # the same for what was sent and never confirmed, for which the kernel would try a quarter of an hour
    "tcp_user_timeout": "60000",
}
# Whatever the role or the database says otherwise: values are read and written in these forms. Nothing else is set
# here, because poolers let no other settings through.
_SESSION = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres"
_POOL_NAME = "flowstone"


_ended_runs: ContextVar[list[str | Event] | None] = ContextVar("flowstone_ended_runs", default=None)


def note_ended(runs: Iterable[str | Event]) -> None:
    """Note that the transaction under way ends runs, or what else is said of it when it is committed.

    `Database.after_runs` is called with all of it then.
    """
    ended = _ended_runs.get()
    if ended is not None:
        ended.extend(runs)


class Database:
    """A PostgreSQL database: autocommit connections from a pool that is opened at the first use.

    Args:
        dsn: `postgresql://` URL or libpq `key=value` string.
        project: whose tables the statements of its connections mean.
        min_size: connections kept open once the pool is.
        max_size: most connections open at once.
        application_name: name shown in `pg_stat_activity`, unless the DSN says another one.
        connect_timeout_seconds: how long a server may take to answer, unless the DSN says another time.

    Raises:
        ConfigurationError: the DSN cannot be understood.
        MissingExtraError: the extra `postgres` is not installed.

    Example:
        >>> Database("postgresql://ann:secret@db.example:5432/data")
        Database('postgresql://ann:***@db.example:5432/data')
    """

    def __init__(
        self,
        dsn: str,
        *,
        project: Project | None = None,
        min_size: int = 1,
        max_size: int = 10,
        application_name: str = "flowstone",
        connect_timeout_seconds: float = 5.0,
    ) -> None:
        given = parse_dsn(dsn)
        self.dsn = dsn
        self.project = project or Project()
        self.masked_dsn = masked_dsn(given)
        self._secrets = [given[key] for key in SECRETS if given.get(key)]
        self._sizes = (min_size, max_size)
        self._timeout = float(given.get("connect_timeout") or connect_timeout_seconds)
        self._parameters = {
            **_KEEPALIVES,
            "connect_timeout": str(max(1, round(connect_timeout_seconds))),
            "fallback_application_name": application_name,
            **given,
            "client_encoding": "UTF8",
            "options": f"{given.get('options', '')} {_SESSION}".strip(),
        }
        self._guard = threading.Lock()
        self._pool: ConnectionPool[Connection[TupleRow]] | None = None
        self._closed = False
        self.after_runs: Callable[[list[str | Event]], None] | None = None
        """Called with the runs that a transaction ended, after its commit."""
        self.watch = Watch()
        """What transactions notify people of."""
        self._open: weakref.WeakSet[Connection[TupleRow]] = weakref.WeakSet()
        renew_after_fork(self, Database._leave_to_parent)

    def _leave_to_parent(self) -> None:
        """In a forked child: close its copies of the sockets, say nothing on them, and begin without a pool."""
        for connection in list(self._open):
            with suppress(Exception):  # closed already
                os.close(connection.pgconn.socket)
        if self._pool is not None:
            # its destructor would wait for threads that are not here
            self._pool._closed = True  # noqa: SLF001 - there is no public way to disown a pool
        keep_of_parent(self._pool, *self._open)
        self._guard = threading.Lock()
        self._pool = None
        self._open = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"Database({self.masked_dsn!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def connect_parameters(self) -> dict[str, str]:
        """Parameters for `psycopg.connect`, the password among them: for a process of our own, never for logs."""
        return dict(self._parameters)

    @property
    def closed(self) -> bool:
        """Whether it was closed; it cannot be used any more."""
        return self._closed

    def pool_use(self) -> PoolUse:
        """Return how many connections there are, and how many threads wait for one."""
        stats = self._pool.get_stats() if self._pool is not None else {}
        return PoolUse(
            self._parameters["fallback_application_name"],
            self._sizes[1],
            stats.get("pool_size", 0),
            stats.get("pool_available", 0),
            stats.get("requests_waiting", 0),
        )

    @property
    def durable(self) -> bool:
        """Whether work can be placed on Oban's queue here; not known of a plain database."""
        return False

    @property
    def queue_problem(self) -> str | None:
        """Why no work can be placed on Oban's queue here, when that is known."""
        return None

    @contextmanager
    def connection(self) -> Iterator[Connection[TupleRow]]:
        """Borrow an autocommit connection from the pool.

        Raises:
            DatabaseUnavailableError: the server does not answer, or went away while the connection was used.
            DatabaseError: all connections stayed in use, or this object was closed.
        """
        pool = self._opened_pool()
        connection = self._borrow(pool)
        try:
            with self._naming_lost_servers(connection):
                yield connection
        finally:
            pool.putconn(connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection[TupleRow]]:
        """Borrow a connection with a transaction open: committed at the end, rolled back on an exception."""
        ended: list[str | Event] = []
        with self.connection() as connection, connection.transaction():
            token, watching = _ended_runs.set(ended), under_way.set(self.watch)
            try:
                yield connection
            finally:
                _ended_runs.reset(token)
                under_way.reset(watching)
        if ended and self.after_runs is not None:
            self.after_runs(ended)

    @contextmanager
    def dedicated(self) -> Iterator[Connection[TupleRow]]:
        """Open an autocommit connection outside the pool, for state that lives as long as the session."""
        connection = self._connect()
        try:
            with self._naming_lost_servers(connection):
                self._refuse(connection)
                yield connection
        finally:
            connection.close()

    def ping(self) -> None:
        """Open one connection and close it again.

        Raises:
            DatabaseUnavailableError: with the reason, when that does not work.
            ConfigurationError: it works, and FlowStone cannot work with what is there.
        """
        connection = self._connect()
        try:
            with self._naming_lost_servers(connection):
                self._refuse(connection)
        finally:
            connection.close()

    def _refuse(self, connection: Connection[TupleRow]) -> None:
        """Refuse what would fail later in ways that nobody understands."""
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in ("UTF8", None):
            raise ConfigurationError(
                f"The database {self.masked_dsn} is encoded in {encoding}, which cannot hold every text. Make one "
                "with: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
            )
        if self.is_pooled(connection) and not self.keeps_sessions(connection):
            raise ConfigurationError(
                f"{self.masked_dsn} leads through a connection pooler in transaction mode: sessions are not kept, "
                "so notifications get lost and prepared statements and locks collide. Give the address of the "
                "server itself, or that of a pool in session mode (PgBouncer: pool_mode = session)."
            )

    def is_pooled(self, connection: Connection[TupleRow]) -> bool:
        """Return whether something stands between us and the server: it makes up the id of the backend."""
        return fetch_value(connection, int, "database/backend") != connection.info.backend_pid

    def keeps_sessions(self, connection: Connection[TupleRow]) -> bool:
        """Return whether a notification arrives on a connection that listens, as it does in a real session."""
        channel = f"flowstone_probe_{secrets.token_hex(8)}"
        connection.execute(with_identifiers(load_sql("database/listen"), channel=channel))
        other = self._connect()
        try:
            other.execute(load_sql("database/notify"), {"channel": channel})
        finally:
            other.close()
        return any(connection.notifies(timeout=_PROBE_SECONDS, stop_after=1))

    def listen(self, channels: Iterable[LiteralString]) -> Listener:
        """Return a listener on these notification channels, with a connection of its own."""
        return Listener(self._connect, map(self.project.sql, channels), target=self.masked_dsn)

    def close(self) -> None:
        """Close all connections; using the database afterwards is an error. Closing twice is not."""
        with self._guard:
            pool, self._pool, self._closed = self._pool, None, True
        if pool is not None:
            pool.close(timeout=_CLOSE_SECONDS)

    def _connect(self) -> Connection[TupleRow]:
        import psycopg

        try:
            connection = psycopg.connect(autocommit=True, **self._parameters, **self._cursors())  # type: ignore[arg-type]
        except psycopg.OperationalError as error:
            raise self._unavailable(error) from error
        self._take_in(connection)
        return connection

    def _take_in(self, connection: Connection[TupleRow]) -> None:
        from psycopg import IsolationLevel

        _adapt_step_ids()
        # our statements look again after waiting for a lock, whatever the role or the database says otherwise
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        self._open.add(connection)

    def _cursors(self) -> dict[str, Any]:
        """Have every statement on these connections mean the tables of the project."""
        return {} if self.project.is_default else {"cursor_factory": _cursor_of(self.project)}

    def _opened_pool(self) -> ConnectionPool[Connection[TupleRow]]:
        with self._guard:
            if self._closed:
                raise DatabaseError(f"The connection to {self.masked_dsn} was closed by this program.")
            if self._pool is None:
                # A pool keeps the reason of a failed connection to itself and answers only after its
                # timeout; this says it at once.
                self.ping()
                self._pool = self._new_pool()
            return self._pool

    def _new_pool(self) -> ConnectionPool[Connection[TupleRow]]:
        _filter_pool_logs()
        minimum, maximum = self._sizes
        pool = _pool_class()(
            kwargs={"autocommit": True, **self._parameters, **self._cursors()},
            min_size=minimum,
            max_size=maximum,
            timeout=self._timeout,
            # its pauses double all the time, up to minutes; whoever waits asks for a new connection instead
            reconnect_timeout=self._timeout,
            check=_check,
            configure=self._take_in,
            name=_POOL_NAME,
            open=True,
        )
        _with_pools.add(self)
        return pool

    def _borrow(self, pool: ConnectionPool[Connection[TupleRow]]) -> Connection[TupleRow]:
        from psycopg_pool import PoolClosed, PoolTimeout

        deadline = time.monotonic() + max(_BUSY_SECONDS, self._timeout)
        while True:
            try:
                return pool.getconn(timeout=self._timeout)
            except PoolClosed as error:
                raise DatabaseError(f"The connection to {self.masked_dsn} was closed meanwhile.") from error
            except PoolTimeout as error:
                self.ping()  # distinguishes an absent server, the usual reason, from a busy pool
                if time.monotonic() >= deadline:
                    raise DatabaseError(
                        f"All {self._sizes[1]} connections to {self.masked_dsn} were in use for "
                        f"{_BUSY_SECONDS:g} s. Allow more connections, or run fewer things at once."
                    ) from error

    @contextmanager
    def _naming_lost_servers(self, connection: Connection[TupleRow]) -> Iterator[None]:
        import psycopg

        try:
            yield
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            if connection.closed:
                raise self._unavailable(error) from error
            raise
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise DatabaseError(
                f"PostgreSQL at {self.masked_dsn} is read-only: a standby, or default_transaction_read_only is on "
                "for this role or database. Connect to the primary; with several hosts in the URL, add "
                "target_session_attrs=read-write."
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"The role of {self.masked_dsn} may not do that: {' '.join(str(error).split())}. Run as the role "
                "that ran `flowstone db upgrade`, or let that one GRANT the rights."
            ) from error
        except (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable) as error:
            # a worker that runs while its tables are upgraded finds other names than those it knows
            raise SchemaVersionError(
                f"The tables in {self.masked_dsn} do not fit this version of FlowStone: "
                f"{str(error).partition(chr(10))[0].strip()}.",
                remedy="When they were upgraded while this program ran, start it again with the version that "
                "upgraded them; `flowstone db status` compares, `flowstone db upgrade` applies what is missing.",
            ) from error
        except (psycopg.errors.DuplicatePreparedStatement, psycopg.errors.InvalidSqlStatementName) as error:
            raise DatabaseError(
                f"{self.masked_dsn} leads through a connection pooler that mixes up sessions "
                f"({error.diag.sqlstate}). Give the address of the server itself, or a pool in session mode."
            ) from error

    def _unavailable(self, error: Exception) -> DatabaseUnavailableError:
        why = " ".join(str(error).split()) or type(error).__name__
        for secret in self._secrets:
            why = why.replace(secret, "***")
        return DatabaseUnavailableError(self.masked_dsn, why.rstrip("."))


@cache
def _adapt_step_ids() -> None:
    """Let psycopg write a `StepId` without a type: SQL of a user may compare it with bigint and with text."""
    from psycopg import adapters
    from psycopg.adapt import Dumper

    class StepIdDumper(Dumper):
        def dump(self, obj: int) -> bytes:
            return str(int(obj)).encode()

    adapters.register_dumper(StepId, StepIdDumper)


@cache
def _pool_class() -> type[ConnectionPool[Connection[TupleRow]]]:
    """Return a class of pools that lend what was returned last.

    Its server process has the statements prepared and planned, which takes several times as long as running them.
    The pool of the driver takes turns, so that each connection of an idle process would have to learn them.
    """
    from psycopg_pool import ConnectionPool

    class WarmPool(ConnectionPool):
        def _get_ready_connection(self, timeout: float | None) -> Any:
            self._pool.rotate(1)
            return super()._get_ready_connection(timeout)

    return WarmPool


@cache
def _cursor_of(project: Project) -> type[Cursor[TupleRow]]:
    """Return a class of cursors that turn each statement into that of a project.

    It sits where statements leave us, and not where they are loaded, so that none can be forgotten.
    """
    from psycopg import Cursor

    class ProjectCursor(Cursor):
        def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
            return super().execute(_for(query), params, **options)

        def executemany(self, query: Any, *arguments: Any, **options: Any) -> None:
            super().executemany(_for(query), *arguments, **options)

        def stream(self, query: Any, *arguments: Any, **options: Any) -> Any:
            return super().stream(_for(query), *arguments, **options)

        def copy(self, statement: Any, *arguments: Any, **options: Any) -> Any:
            return super().copy(_for(statement), *arguments, **options)

    def _for(query: Any) -> Any:
        return project.sql(query) if isinstance(query, str) else query

    return ProjectCursor


def with_identifiers(text: LiteralString, **names: str) -> Composed:
    """Put quoted names of tables, databases or channels into the `{placeholders}` of a statement.

    Example:
        >>> with_identifiers("LISTEN {channel}", channel='odd"name').as_string()
        'LISTEN "odd""name"'
    """
    from psycopg.sql import SQL, Identifier

    return SQL(text).format(**{key: Identifier(name) for key, name in names.items()})


@contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Turn an error of the driver into a DatabaseError that says what was being done.

    Args:
        what: full sentence part, such as `Migration 0002_runs could not be applied`.
    """
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        raise DatabaseError(f"{what}: {error}") from error


_with_pools: weakref.WeakSet[Database] = weakref.WeakSet()


@atexit.register
def _close_forgotten() -> None:
    """Close what nobody closed: later in the end of the interpreter, the threads of a pool cannot be stopped."""
    for database in list(_with_pools):
        database.close()


def _check(connection: Connection[TupleRow]) -> None:
    """Refuse a pooled connection whose server has gone, without a round trip for the healthy ones.

    An idle connection is silent; bytes waiting on it (or its end) are what a restarted server leaves behind.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        if selector.select(0):
            connection.execute("")


class _PoolNoise(logging.Filter):
    """Drops the pool's line per failed attempt: callers get an error with the reason and report it once."""

    def filter(self, record: logging.LogRecord) -> bool:
        first = record.args[0] if isinstance(record.args, tuple) and record.args else None
        # discarded connections are named themselves, and know their pool
        return _POOL_NAME not in (first, getattr(getattr(first, "_pool", None), "name", None))


_pool_noise = _PoolNoise()


def _filter_pool_logs() -> None:
    logging.getLogger("psycopg.pool").addFilter(_pool_noise)  # adding the same filter twice changes nothing


log = logging.getLogger(__name__)

_TRIES = 8
_RETRY_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.005
_MAX_PAUSE_SECONDS = 1.0


def in_transaction[T](
    database: Database, work: Callable[[Connection[TupleRow]], T], *, outdated_tries: int | None = None
) -> T:
    """Run one transaction, again after a deadlock or when the plan went stale meanwhile, with growing pauses.

    Args:
        database: where.
        work: does everything on the connection it is given; called once for each try.
        outdated_tries: how often a stale plan is tried; None as often as anything else.

    Raises:
        DatabaseError: it was refused time and again.
        PlanOutdatedError: the plan went stale time and again.
    """
    from psycopg import errors

    started, pause, tries, outdated = time.monotonic(), _FIRST_PAUSE_SECONDS, 0, 0
    while True:
        tries += 1
        try:
            with database.transaction() as connection:
                return work(connection)
        except (errors.DeadlockDetected, errors.SerializationFailure, PlanOutdatedError) as error:
            took = time.monotonic() - started
            is_outdated = isinstance(error, PlanOutdatedError)
            outdated += is_outdated
            if is_outdated and outdated == outdated_tries:
                raise
            if tries >= _TRIES and took >= _RETRY_SECONDS:
                raise DatabaseError(
                    f"A transaction was refused {tries} times in {took:.0f} s, the last time because of: {error}"
                ) from error
            log.debug("Transaction is repeated: %s", error)
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads those that were refused together
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)
