"""`TableIO`: values as tables of PostgreSQL, in the app's own database or in another one."""

from __future__ import annotations

import copy
import io
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, LiteralString, Self

from flowstone.errors import ConfigurationError
from flowstone.io.postgres import Connect, database_errors, server_of
from flowstone.io.sql_columns import SqlColumn, to_arrow_type
from flowstone.io.sql_names import Place, SchemaChanges, quoted, statement
from flowstone.io.sql_tables import Session, SqlTableIO

if TYPE_CHECKING:
    import pyarrow
    from psycopg import Connection

_BATCH_ROWS = 65_536
_KEPT_IN_MEMORY = 16 * 1024 * 1024
_SETTING = "flowstone_tables.version"


class TableIO(SqlTableIO):
    """Values as tables of PostgreSQL that others select from: an asset is a table, a partition its rows.

    Takes DataFrames of pandas and polars and pyarrow Tables; each comes back as what it was. In the app's own
    database a new version becomes visible in the transaction that commits it; in another one right after it, and
    again until it is. The table has the columns of the value, and for an asset with partitions one more that says
    which.

    Args:
        url: another database, `postgresql://...`; the app's own when it is left out.
        schema: schema of the tables; made when it is not there.
        tables: names of tables by asset, where they differ.
        partition_column: name of the column with the partition: a date, a time, a number or text.
        history: whether the rows of versions are kept beside the table until they are pruned: earlier ones can be
            loaded and restored then, and the visible ones lie there twice. False moves the rows: only what is
            visible is kept.
        schema_changes: `"widen"` adds columns and makes types wider when a version needs it; `"refuse"` refuses.
        name: name under which the app knows it.

    Raises:
        ConfigurationError: an option cannot work.

    Example:
        >>> from flowstone.io import TableIO
        >>> TableIO(schema="analytics", tables={"orders": "fact_orders"}).name
        'tables'
    """

    _types: Mapping[str, str] = {"bytes": "bytea", "json": "jsonb", "double": "double precision"}
    _locking: LiteralString = " FOR UPDATE"
    _rows_columns: LiteralString = (
        "flowstone_version text NOT NULL DEFAULT current_setting('flowstone_tables.version'), "
        "flowstone_row bigint GENERATED ALWAYS AS IDENTITY"
    )

    def __init__(
        self,
        url: str | None = None,
        *,
        schema: str = "public",
        tables: Mapping[str, str] | None = None,
        partition_column: str = "flowstone_partition",
        history: bool = True,
        schema_changes: SchemaChanges = "widen",
        name: str = "tables",
    ) -> None:
        super().__init__(
            schema=schema,
            tables=tables,
            partition_column=partition_column,
            history=history,
            schema_changes=schema_changes,
            name=name,
        )
        given: object = url
        if given is not None and (not isinstance(given, str) or not given.strip()):
            raise ConfigurationError("TableIO(url=...): give 'postgresql://...', or leave it out.")
        self._url = url.replace("postgresql+psycopg://", "postgresql://", 1) if url else None
        self._own: Connect | None = None
        self._server: tuple[str, str] | None = None

    def in_database(self, connect: Connect | None) -> Self:
        """Return this manager for the database of an app, unless it has a URL of its own.

        Args:
            connect: opens a connection in autocommit mode; None for an app without a database.

        Raises:
            ConfigurationError: there is neither a URL nor a database.
        """
        if self._url is not None:
            return self
        if connect is None:
            raise ConfigurationError(
                f"TableIO(name={self._name!r}) keeps tables in the database of the app, which has none. Give "
                "FlowStone a database_url, or TableIO a url."
            )
        manager = copy.copy(self)
        manager._own = connect  # noqa: SLF001 - of our own copy
        return manager

    @property
    def in_transaction(self) -> bool:
        """Whether the tables lie in the app's own database."""
        return self._url is None

    def dataset(self, asset: str) -> tuple[str, str]:
        """Return the name of an asset's table in catalogs of data: server, database, schema and table."""
        if self._server is None:
            with self._connection() as connection:
                self._server = server_of(connection)
        place = self._place(asset)
        return self._server[0], f"{self._server[1]}.{place.schema}.{place.table}"

    @contextmanager
    def _session(self, *, reading: bool = False) -> Iterator[Session]:
        with self._connection() as connection, connection.transaction():
            if reading:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield _PostgresSession(connection)

    @contextmanager
    def _connection(self) -> Iterator[Connection[Any]]:
        if self._own is not None:
            with self._own() as connection:
                yield connection
            return
        if self._url is None:
            raise ConfigurationError("TableIO without a url belongs to an app: FlowStone(io={...: TableIO()}).")
        import psycopg

        with psycopg.connect(self._url, autocommit=True) as connection:
            yield connection

    def _within(self, connection: object) -> Session:
        return _PostgresSession(connection)

    def _errors(self, action: str, asset: str, partition: str) -> AbstractContextManager[None]:
        return database_errors(action, asset, partition)

    def _lock_table(self, session: Session, place: Place) -> None:
        session.rows("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(?, 0))", str(place))

    def _index(self, session: Session, place: Place, *, partitioned: bool) -> None:
        session.script(statement("index_beside", table=place.beside))
        if partitioned:
            column = quoted(self._partition_column)
            session.script(statement("index_partition", table=place.visible, partition=column))


class _PostgresSession:
    """Statements on a connection whose transaction is open.

    They are given as bytes: nothing in them is meant for the tables of a project, see `Project.sql`.
    """

    def __init__(self, connection: Any) -> None:
        from psycopg.rows import tuple_row

        self._cursor = connection.cursor(row_factory=tuple_row)

    def rows(self, text: str, *parameters: object) -> list[tuple[Any, ...]]:
        self._execute(text, parameters)
        found: list[tuple[Any, ...]] = self._cursor.fetchall()
        return found

    def run(self, text: str, *parameters: object) -> int:
        self._execute(text, parameters)
        number: int = self._cursor.rowcount
        return number

    def script(self, text: str) -> None:
        self._cursor.execute(text.encode())

    def write(self, relation: str, columns: Sequence[SqlColumn], data: pyarrow.Table, version: str) -> None:
        import pyarrow.csv

        self.rows("SELECT pg_catalog.set_config(?, ?, true)", _SETTING, version)
        names = ", ".join(quoted(one.name) for one in columns)
        options = pyarrow.csv.WriteOptions(include_header=False)
        with self._cursor.copy(f"COPY {relation} ({names}) FROM STDIN (FORMAT csv)".encode()) as copying:
            for batch in data.to_batches(max_chunksize=_BATCH_ROWS):
                sink = io.BytesIO()
                pyarrow.csv.write_csv(_as_text(batch, columns), sink, options)
                copying.write(sink.getbuffer())

    def read(self, columns: Sequence[SqlColumn], source: str, *parameters: object) -> pyarrow.Table:
        import pyarrow
        import pyarrow.csv

        listed = ", ".join(_SELECTED.get(one.kind, "{}").format(quoted(one.name)) for one in columns)
        copying_text = f"COPY (SELECT {listed} FROM {source}) TO STDOUT (FORMAT csv)"  # noqa: S608 - quoted names
        types = {str(at): _travels_as(one.kind) for at, one in enumerate(columns)}
        with tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY) as spool:
            with self._cursor.copy(_with_parameters(copying_text), parameters) as copying:
                for data in copying:
                    spool.write(data)
            if not spool.seek(0, io.SEEK_END):
                arrays = [pyarrow.array([], to_arrow_type(one.kind)) for one in columns]
                return pyarrow.Table.from_arrays(arrays, names=[one.name for one in columns])
            spool.seek(0)
            table = pyarrow.csv.read_csv(
                spool,
                read_options=pyarrow.csv.ReadOptions(column_names=list(types)),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=types,
                    null_values=[""],
                    true_values=["t"],
                    false_values=["f"],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        arrays = [_from_text(table.column(at), one.kind) for at, one in enumerate(columns)]
        return pyarrow.Table.from_arrays(arrays, names=[one.name for one in columns])

    def _execute(self, text: str, parameters: Sequence[object]) -> None:
        self._cursor.execute(_with_parameters(text), parameters)


# what does not depend on the settings of a session, and is exact: microseconds, days, hexadecimal digits
_SELECTED = {
    "date": "{0} - date '1970-01-01'",
    "time": "(extract(epoch FROM {0}) * 1000000)::bigint",
    "timestamp": "(extract(epoch FROM {0}) * 1000000)::bigint",
    "timestamptz": "(extract(epoch FROM {0}) * 1000000)::bigint",
    "bytes": "encode({0}, 'hex')",
}


_TOKENS = re.compile(r'"(?:[^"]|"")*"|\?|%')


def _with_parameters(text: str) -> bytes:
    """Return a statement with the driver's placeholders; what stands in the names of columns stays as it is."""

    def replaced(found: re.Match[str]) -> str:
        return "%s" if found[0] == "?" else found[0].replace("%", "%%")

    return _TOKENS.sub(replaced, text).encode()


def _travels_as(kind: str) -> pyarrow.DataType:
    """Return the Arrow type of what `_SELECTED` selects."""
    import pyarrow

    if kind == "date":
        return pyarrow.int32()
    if kind in ("time", "timestamp", "timestamptz"):
        return pyarrow.int64()
    return pyarrow.string() if kind == "bytes" else to_arrow_type(kind)


def _as_text(batch: pyarrow.RecordBatch, columns: Sequence[SqlColumn]) -> pyarrow.RecordBatch:
    """Return rows whose binary columns are written as PostgreSQL reads them."""
    import pyarrow

    arrays = [
        pyarrow.array([None if one is None else "\\x" + one.hex() for one in array.to_pylist()], pyarrow.string())
        if column.kind == "bytes"
        else array
        for array, column in zip(batch.columns, columns, strict=True)
    ]
    return pyarrow.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def _from_text(column: pyarrow.ChunkedArray, kind: str) -> pyarrow.ChunkedArray:
    import pyarrow

    if kind == "bytes":
        values = [None if one is None else bytes.fromhex(one) for one in column.to_pylist()]
        return pyarrow.chunked_array([pyarrow.array(values, pyarrow.binary())])
    return column.cast(to_arrow_type(kind))
