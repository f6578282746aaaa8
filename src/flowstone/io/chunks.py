"""Large values as rows of chunks: a file that writes them, and copying them back into a file."""

from __future__ import annotations

import io
from collections.abc import Buffer, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from flowstone.core.output import OutputAddress
from flowstone.core.project import Project
from flowstone.errors import MissingExtraError, StorageError, StorageFailure
from flowstone.io.statements import statement

if TYPE_CHECKING:
    from psycopg import Connection, Cursor


class Limits(NamedTuple):
    """Sizes in bytes that decide where a value goes."""

    inline_limit_bytes: int
    chunk_bytes: int
    max_bytes: int


type Connect = Callable[[], AbstractContextManager[Connection[Any]]]
"""Opens or borrows an autocommit connection for the length of a `with` block."""

_UPGRADE = "Run `flowstone db upgrade`."
_BY_SQLSTATE: dict[str, tuple[StorageFailure, str]] = {
    "53100": ("full", "Free space on the database server; the previous version is still readable."),
    "42501": ("denied", "Grant the database user its rights on the schema flowstone."),
    "25006": ("read_only", "Connect to the primary server."),
    "42P01": ("missing", _UPGRADE),
    "3F000": ("missing", _UPGRADE),
}
_NO_ANSWER = "Check that the server runs; `flowstone doctor` checks each part."
_UNAVAILABLE: tuple[StorageFailure, str] = ("unavailable", _NO_ANSWER)
_OTHER: tuple[StorageFailure, str] = ("other", "The previous version is still readable.")


@contextmanager
def database_errors(action: str, asset: str, partition: str) -> Iterator[None]:
    """Turn errors of the driver into StorageError, classified by their SQLSTATE.

    Args:
        action: `"store"`, `"load"` or `"delete"`.
        asset: asset name, or what is known of the value.
        partition: encoded partition key.
    """
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise MissingExtraError("psycopg", "postgres", "PostgresIO") from error
    try:
        yield
    except psycopg.Error as error:
        usual = _UNAVAILABLE if isinstance(error, psycopg.OperationalError) else _OTHER
        kind, remedy = _BY_SQLSTATE.get(error.sqlstate or "", usual)
        why = str(error).strip().partition("\n")[0]
        raise StorageError(action, asset, partition, why, kind=kind, remedy=remedy) from error


class ChunkWriter(io.BufferedIOBase, BinaryIO):
    """Write-only file that keeps a small value in memory and streams a larger one to the database.

    Args:
        connect: opens a connection.
        address: whose value it is.
        transaction: keeps the connection and its transaction, opened when the value outgrows
            `inline_limit_bytes`; leaving it commits, leaving it with an error rolls back.
        limits: when to begin writing, in pieces of what size, and when to give up.
        project: whose tables.
    """

    def __init__(
        self,
        connect: Connect,
        address: OutputAddress,
        transaction: ExitStack,
        limits: Limits,
        project: Project | None = None,
    ) -> None:
        super().__init__()
        self._connect = connect
        self._address = address
        self._transaction = transaction
        self._limits = limits
        self._project = project
        self._buffer = bytearray()
        self._size = 0
        self._chunks = 0
        self._cursor: Cursor[Any] | None = None

    @property
    def payload(self) -> bytes | None:
        """The whole value while it is within the inline limit, else None."""
        return bytes(self._buffer) if self._cursor is None else None

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Take `data`, writing every chunk that is full.

        Raises:
            StorageError: the database refused it, or the value is too large.
        """
        view = memoryview(data)
        self._size += view.nbytes
        if self._size > self._limits.max_bytes:
            raise self._too_large()
        chunk_bytes = self._limits.chunk_bytes
        for start in range(0, view.nbytes, chunk_bytes):
            self._buffer += view[start : start + chunk_bytes]
            if self._cursor is None and len(self._buffer) > self._limits.inline_limit_bytes:
                self._begin()
            while self._cursor is not None and len(self._buffer) >= chunk_bytes:
                self._emit(self._cursor)
        return view.nbytes

    def finish(self) -> None:
        """Write the last, partly filled chunk."""
        if self._cursor is not None and self._buffer:
            self._emit(self._cursor)

    def _begin(self) -> None:
        with database_errors("store", self._address.asset, self._address.partition):
            connection = self._transaction.enter_context(self._connect())
            self._transaction.enter_context(connection.transaction())
            self._cursor = self._transaction.enter_context(value_cursor(connection))
            self._cursor.execute(statement("clear_version", self._project), {"version": self._address.version})

    def _emit(self, cursor: Cursor[Any]) -> None:
        payload = bytes(self._buffer[: self._limits.chunk_bytes])
        del self._buffer[: self._limits.chunk_bytes]
        row = {"version": self._address.version, "chunk": self._chunks, "payload": payload}
        with database_errors("store", self._address.asset, self._address.partition):
            cursor.execute(statement("write_chunk", self._project), row)
        self._chunks += 1

    def _too_large(self) -> StorageError:
        return StorageError(
            "store",
            self._address.asset,
            self._address.partition,
            f"its encoded value is larger than the limit of {self._limits.max_bytes:,} bytes for PostgreSQL",
            kind="too_large",
            remedy="Use io='filesystem' for this asset, partition it, or raise PostgresIO(max_bytes=...).",
        )


def value_cursor(connection: Connection[Any]) -> Cursor[Any]:
    """Return a cursor whose rows are the value of their one column, whatever the connection was set to, in binary.

    The text form of bytea would be twice as long.
    """
    from psycopg.rows import scalar_row

    return connection.cursor(binary=True, row_factory=scalar_row)


def copy_value(
    connect: Connect, version: str, target: BinaryIO, *, inline: bool, project: Project | None = None
) -> bool:
    """Copy the bytes of a version into `target` and return whether there were any rows of it.

    Args:
        connect: opens a connection.
        version: name of the version.
        target: file to write to.
        inline: whether it lies in one piece, written by the committing transaction.
        project: whose tables.
    """
    text = statement("read_payload" if inline else "read_chunk", project)
    with connect() as connection, value_cursor(connection) as cursor:
        chunk = 0
        while (payload := cursor.execute(text, {"version": version, "chunk": chunk}).fetchone()) is not None:
            target.write(payload)
            chunk += 1
            if inline:
                break
    return chunk > 0
