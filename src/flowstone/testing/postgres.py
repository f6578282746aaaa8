"""Throw-away PostgreSQL databases for tests: one server a session, one clone of a prepared template a test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

from flowstone.errors import EmbeddedDatabaseError
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database, with_identifiers
from flowstone.stores.postgres.dsn import parse_dsn
from flowstone.stores.postgres.embedded.cluster import FileLock
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres
from flowstone.stores.postgres.sql import fetch_value
from flowstone.stores.postgres.store import upgrade

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg import Connection
    from psycopg.rows import TupleRow

# Tests lose nothing worth keeping when the machine stops.
UNSAFE_BUT_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_TEMPLATE = "prepared"
_NOT_ALLOWED = "42501"
_NAMES_STRATEGIES = 150000
"""Since which version of the server it is asked how to copy a database."""


class TemporaryServer:
    """A server for tests that clones a prepared database for each of them (an idea of procrastinate's tests).

    Several processes, such as the workers of pytest-xdist, may use one directory: they share the server and
    the template, and the last one stops the server.

    Args:
        directory: where the server lies; the caller removes it.
        prepare: called once for the directory, with the DSN of the database that becomes the template.
        binaries: PostgreSQL's programs; default: those of the embedded one.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as directory, TemporaryServer(Path(directory), prepare=print) as server:
        ...     with server.database() as dsn:
        ...         Database(dsn).ping()  # doctest: +ELLIPSIS
        postgresql://flowstone@/building_...
    """

    def __init__(self, directory: Path, *, prepare: Callable[[str], None], binaries: Path | None = None) -> None:
        self._directory = directory
        self._prepare = prepare
        self._server = EmbeddedPostgres(directory, binaries=binaries, settings=UNSAFE_BUT_FAST)
        self._dsn = ""
        self._template = _TEMPLATE
        self._session: Connection[TupleRow] | None = None
        self._sessions = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start or join the server and prepare the template if nobody has done so."""
        self._dsn = self._server.start()
        lock = FileLock(self._directory / "template.lock")
        try:
            if not lock.wait_exclusive(timeout_seconds=120.0):
                raise EmbeddedDatabaseError(f"Another process has been preparing {self._dsn} for 120 s.")
            if not self._has_template():
                self._build_template()
        finally:
            lock.close()

    def stop(self) -> None:
        """Leave the server; the last one stops it."""
        self._leave()
        self._server.stop()

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a clone of the template and drop it afterwards, whoever is still connected; yields its DSN."""
        with self._temporary(self._template) as dsn:
            yield dsn

    @contextmanager
    def empty_database(self) -> Iterator[str]:
        """Make a database with nothing in it and drop it afterwards; yields its DSN."""
        with self._temporary("template0") as dsn:
            yield dsn

    @contextmanager
    def clone(self, dsn: str) -> Iterator[str]:
        """Make a clone of a database of this server that nobody uses, and drop it afterwards; yields its DSN."""
        with self._temporary(urlsplit(dsn).path.lstrip("/")) as cloned:
            yield cloned

    @contextmanager
    def _temporary(self, template: str) -> Iterator[str]:
        name = f"test_{uuid4().hex}"
        _clone(self._connection(), name, template)
        try:
            yield self._dsn_of(name)
        finally:
            self._connection().execute(with_identifiers(load_sql("database/drop"), name=name))

    def _connection(self) -> Connection[TupleRow]:
        """Return the session that makes and drops databases; to open one for each takes a third of a clone."""
        from psycopg import OperationalError

        if self._session is not None:
            with suppress(OperationalError):  # of a server that was started anew, or a proxy that cut it off
                fetch_value(self._session, int, "database/backend")
                return self._session
            self._leave()
        self._session = self._sessions.enter_context(Database(self._dsn).dedicated())
        return self._session

    def _leave(self) -> None:
        self._session = None
        self._sessions.close()

    def _has_template(self) -> bool:
        with Database(self._dsn).dedicated() as connection:
            return bool(fetch_value(connection, bool, "database/exists", {"name": self._template}))

    def _build_template(self) -> None:
        name = f"building_{uuid4().hex}"
        with Database(self._dsn).dedicated() as connection:
            _clone(connection, name, "template0")
            self._prepare(self._dsn_of(name))
            # this session writes down what every first session of a clone would have to find out again
            Database(self._dsn_of(name)).ping()
            connection.execute(with_identifiers(load_sql("database/rename"), name=name, template=self._template))

    def _dsn_of(self, database: str) -> str:
        return urlsplit(self._dsn)._replace(path=f"/{database}").geturl()


class GivenServer(TemporaryServer):
    """A server that is there already, such as the service of a CI job, in place of an embedded one.

    Each process prepares a template of its own there and drops it at its end.

    Args:
        dsn: a database of the server, whose user may create databases.

    Raises:
        EmbeddedDatabaseError: the user may not create databases.
    """

    def __init__(self, dsn: str) -> None:
        self._prepare = prepare
        self._parameters = parse_dsn(dsn)
        self._dsn = dsn
        self._template = f"flowstone_template_{uuid4().hex}"
        self._session = None
        self._sessions = ExitStack()

    def start(self) -> None:
        """Prepare the template."""
        try:
            self._build_template()
        except Exception as error:
            if getattr(error, "sqlstate", None) == _NOT_ALLOWED:
                raise EmbeddedDatabaseError(
                    f"The user of this server may not create databases: ALTER ROLE ... CREATEDB ({error})"
                ) from error
            raise

    def stop(self) -> None:
        """Drop the template."""
        try:
            self._connection().execute(with_identifiers(load_sql("database/drop"), name=self._template))
        finally:
            self._leave()

    def _dsn_of(self, database: str) -> str:
        rest = {name: value for name, value in self._parameters.items() if name != "dbname"}
        return f"postgresql:///{database}?{urlencode(rest)}"


def prepare(dsn: str) -> None:
    """Make FlowStone's tables in a database."""
    upgrade(Database(dsn))


def _clone(connection: Connection[TupleRow], name: str, template: str) -> None:
    statement = load_sql("database/clone")
    if connection.info.server_version < _NAMES_STRATEGIES:
        statement = statement.replace(" STRATEGY FILE_COPY", "")
    connection.execute(with_identifiers(statement, name=name, template=template))


@cache
def system_binaries() -> Path | None:
    """Return the programs of the PostgreSQL server that the operating system installed, if there is one."""
    pg_config = shutil.which("pg_config")
    if pg_config is None:
        return None
    done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603
    binaries = Path(done.stdout.strip())
    complete = all((binaries / tool).is_file() for tool in ("initdb", "pg_ctl", "postgres"))
    return binaries if done.returncode == 0 and complete else None


def remove_server(directory: Path, *, binaries: Path | None = None) -> None:
    """Remove the directory of a server with all that it holds outside of it.

    A server that a killed test process left running is stopped. One that was killed itself is started once
    more, because only its next start frees its shared memory.

    Args:
        directory: what the server was started on; missing is fine.
        binaries: PostgreSQL's programs, when they are not the embedded ones.
    """
    if (directory / "server.lock").exists():
        lock = FileLock(directory / "server.lock")
        alive = not lock.try_exclusive()
        lock.close()
        if alive or (directory / "data" / "postmaster.pid").exists():
            leftover = EmbeddedPostgres(directory, binaries=binaries, settings=UNSAFE_BUT_FAST)
            leftover.start()
            leftover.stop()
    shutil.rmtree(directory, ignore_errors=True)
