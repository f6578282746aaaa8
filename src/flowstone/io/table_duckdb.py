"""`DuckDBTableIO`: values as tables of a DuckDB file.

DuckDB lets one process write a file, and nobody else read it meanwhile. So the file is open for as long as a
statement takes and no longer, whoever finds it in use waits, and the app is given a limit of one step at a time
for the assets of a file, in the whole fleet.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from flowstone.core.declaring import shown
from flowstone.core.forks import renew_after_fork
from flowstone.errors import ConfigurationError, MissingExtraError, StorageError
from flowstone.io.sql_columns import SqlColumn, to_arrow_type
from flowstone.io.sql_names import Place, SchemaChanges, quoted, statement
from flowstone.io.sql_tables import Session, SqlTableIO

if TYPE_CHECKING:
    import duckdb
    import pyarrow

_FIRST_PAUSE_SECONDS = 0.01
_MAX_PAUSE_SECONDS = 0.5
_IN_USE = ("lock", "being used by another process", "already open")


class DuckDBTableIO(SqlTableIO):
    """Values as tables of a DuckDB file that others select from; see `TableIO` for what that means.

    A version becomes visible right after its commit, in one transaction of DuckDB. The file is opened for each
    statement and closed again, so that readers get their turn; who finds it in use waits `wait_seconds`.

    Args:
        path: the file; made when it is not there.
        wait_seconds: how long to wait for other processes that have the file open.
        schema: see `TableIO`.
        tables: see `TableIO`.
        partition_column: see `TableIO`.
        history: see `TableIO`.
        schema_changes: see `TableIO`.
        name: name under which the app knows it.

    Raises:
        ConfigurationError: an option cannot work.

    Example:
        >>> DuckDBTableIO("warehouse.duckdb").limits
        {'duckdb warehouse.duckdb': 1}
    """

    extra = "duckdb"
    _types: Mapping[str, str] = {"bytes": "BLOB", "json": "JSON", "numeric": "DECIMAL"}
    _rows_columns: LiteralString = "flowstone_version text NOT NULL, flowstone_row bigint NOT NULL"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        wait_seconds: float = 60.0,
        schema: str = "main",
        tables: Mapping[str, str] | None = None,
        partition_column: str = "flowstone_partition",
        history: bool = True,
        schema_changes: SchemaChanges = "widen",
        name: str = "duckdb",
    ) -> None:
        super().__init__(
            schema=schema,
            tables=tables,
            partition_column=partition_column,
            history=history,
            schema_changes=schema_changes,
            name=name,
        )
        given: Any = path
        if not isinstance(given, str | os.PathLike) or not str(given) or str(given).startswith((":", "md:")):
            raise ConfigurationError(
                f"DuckDBTableIO(path={shown(path)}): give the path of a file. A database in memory is another one "
                "for each connection."
            )
        pause: Any = wait_seconds
        if type(pause) not in (int, float) or not 0 <= pause < 86_400:
            raise ConfigurationError(f"DuckDBTableIO(wait_seconds={shown(wait_seconds)}): give 0 to 86,400.")
        self._path = Path(path).absolute()
        self._wait_seconds = wait_seconds

    @property
    def limits(self) -> dict[str, int]:
        """A limit for the assets that it keeps, in the whole fleet: one step of them writes at a time."""
        return {f"duckdb {self._path.name}": 1}

    def dataset(self, asset: str) -> tuple[str, str]:
        """Return the name of an asset's table in catalogs of data: the file, schema and table."""
        place = self._place(asset)
        return f"duckdb://{self._path}", f"{self._path.stem}.{place.schema}.{place.table}"

    @property
    def in_transaction(self) -> bool:
        """False: the file is another database than the app's."""
        return False

    @contextmanager
    def _session(self, *, reading: bool = False) -> Iterator[Session]:
        deadline = time.monotonic() + self._wait_seconds
        with _turn(self._path, self._wait_seconds):
            connection = self._open(deadline)
            try:
                connection.execute("BEGIN TRANSACTION")
                yield _DuckSession(connection)
                connection.execute("COMMIT")
            finally:
                connection.close()  # which rolls back what is open

    def _open(self, deadline: float) -> duckdb.DuckDBPyConnection:
        import duckdb

        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return duckdb.connect(self._path)
            except duckdb.IOException as error:
                if not any(one in str(error) for one in _IN_USE) or time.monotonic() >= deadline:
                    raise
            time.sleep(pause)
            pause = min(_MAX_PAUSE_SECONDS, pause * 2)

    def _within(self, connection: object) -> Session:
        raise NotImplementedError("a DuckDB file is published after the commit")

    def _lock_table(self, session: Session, place: Place) -> None:
        """Nothing to do: the file is locked."""

    def _index(self, session: Session, place: Place, *, partitioned: bool) -> None:
        """Nothing to do: DuckDB knows the ranges of values of its blocks."""

    @contextmanager
    def _errors(self, action: str, asset: str, partition: str) -> Iterator[None]:
        try:
            import duckdb
        except ModuleNotFoundError as error:
            raise MissingExtraError("duckdb", "duckdb", "DuckDBTableIO") from error
        try:
            yield
        except duckdb.Error as error:
            why = str(error).strip().partition("\n")[0]
            in_use = isinstance(error, duckdb.IOException) and any(one in str(error) for one in _IN_USE)
            raise StorageError(
                action,
                asset,
                partition,
                f"DuckDB says of {self._path}: {why}",
                kind="unavailable" if in_use else "other",
                remedy="Another process has the file open: close it there, or raise wait_seconds."
                if in_use
                else "The previous version is still readable.",
            ) from error


class _DuckSession:
    """Statements on a connection whose transaction is open."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def rows(self, text: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(text, list(parameters)).fetchall()

    def run(self, text: str, *parameters: object) -> int:
        found = self._connection.execute(text, list(parameters)).fetchall()
        return int(found[0][0]) if found and isinstance(found[0][0], int) else 0

    def script(self, text: str) -> None:
        self._connection.execute(text)

    def write(self, relation: str, columns: Sequence[SqlColumn], data: pyarrow.Table, version: str) -> None:
        import pyarrow

        numbered = data.append_column("flowstone_row", pyarrow.array(range(data.num_rows), pyarrow.int64()))
        names = ", ".join(quoted(one.name) for one in columns)
        self._connection.register("flowstone_incoming", numbered)
        self._connection.execute(statement("add_rows", beside=relation, columns=names), [version])
        self._connection.unregister("flowstone_incoming")

    def read(self, columns: Sequence[SqlColumn], source: str, *parameters: object) -> pyarrow.Table:
        import pyarrow

        listed = ", ".join(
            f"CAST({quoted(one.name)} AS VARCHAR)" if one.kind == "json" else quoted(one.name) for one in columns
        )
        found = self._connection.execute(statement("read", columns=listed, source=source), list(parameters))
        with warnings.catch_warnings():  # of an extra copy: a query with parameters has no other way
            warnings.simplefilter("ignore", UserWarning)
            table: Any = found.to_arrow_table()
        arrays = [table.column(at).cast(to_arrow_type(one.kind)) for at, one in enumerate(columns)]
        return pyarrow.Table.from_arrays(arrays, names=[one.name for one in columns])


class _Turns:
    """One lock a file: threads of a process share its connection to DuckDB, and take turns."""

    def __init__(self) -> None:
        self._renew()
        renew_after_fork(self, _Turns._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._of_file: dict[Path, threading.Lock] = {}

    def of(self, path: Path) -> threading.Lock:
        """Return the lock of a file."""
        with self._lock:
            return self._of_file.setdefault(path, threading.Lock())


_turns = _Turns()


@contextmanager
def _turn(path: Path, wait_seconds: float) -> Iterator[None]:
    lock = _turns.of(path)
    if not lock.acquire(timeout=wait_seconds):
        raise StorageError(
            "open", str(path), "", "another thread has it open", kind="unavailable", remedy="Raise wait_seconds."
        )
    try:
        yield
    finally:
        lock.release()
