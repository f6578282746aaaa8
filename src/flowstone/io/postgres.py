"""Values in PostgreSQL: small ones travel with the commit, large ones in chunks; SQL is in `io/sql/`."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Buffer, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, LiteralString, NamedTuple, cast

from flowstone.core.declaring import shown, whole_number
from flowstone.core.output import OutputAddress, StoredOutput, make_stored, type_name
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import InProject, Project
from flowstone.errors import (
    ConfigurationError,
    MissingExtraError,
    SerializationError,
    StorageError,
    StorageFailure,
)
from flowstone.io.encoding import Codec, check_serializer, copy_encoded, encode, not_ours, serializer_for
from flowstone.io.json import JsonSerializer
from flowstone.protocols import KeepVersions, Serializer
from flowstone.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection, Cursor


@cache
def statement(name: str, project: Project | None = None) -> LiteralString:
    """Return the text of a statement.

    Args:
        name: its name in `io/sql/versions.sql`.
        project: whose tables it means.

    Example:
        >>> statement("read_chunk").splitlines()[-1][:14]
        'SELECT payload'
    """
    return (project or Project()).sql(load_sql(f"versions/{name}", "flowstone.io"))


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


def server_of(connection: Connection[Any]) -> tuple[str, str]:
    """Return the server and the database of a connection, as catalogs of data name them."""
    info = connection.info
    host = "localhost" if info.host.startswith("/") or not info.host else info.host
    return f"postgres://{host}:{info.port}", info.dbname


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
        with database_errors("store", self._address.asset, self._address.partition_key):
            connection = self._transaction.enter_context(self._connect())
            self._transaction.enter_context(connection.transaction())
            self._cursor = self._transaction.enter_context(value_cursor(connection))
            cleared = {"version": self._address.fenced_version}
            self._cursor.execute(statement("clear_version", self._project), cleared)

    def _emit(self, cursor: Cursor[Any]) -> None:
        payload = bytes(self._buffer[: self._limits.chunk_bytes])
        del self._buffer[: self._limits.chunk_bytes]
        row = {"version": self._address.fenced_version, "chunk": self._chunks, "payload": payload}
        with database_errors("store", self._address.asset, self._address.partition_key):
            cursor.execute(statement("write_chunk", self._project), row)
        self._chunks += 1

    def _too_large(self) -> StorageError:
        return StorageError(
            "store",
            self._address.asset,
            self._address.partition_key,
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


_MIB = 1024 * 1024
_LARGEST_CHUNK = 256 * _MIB  # A row cannot exceed 1 GiB, and each one passes through memory as a whole.
_LARGEST_VALUE = 1024**5
_KEPT_IN_MEMORY = 16 * _MIB
_PAGE_SIZE = 1000
_INLINE = "inline"
_CHUNKS = "chunks"


class PostgresIO(InProject):
    """Stores values in PostgreSQL, so that a pipeline needs no other storage.

    A value that is small once encoded is not written here at all: it is handed over as
    `StoredOutput.payload` and written by the transaction that commits the success. A larger one is streamed
    in chunks, in a transaction of its own, under the version of its attempt with its fencing token. Loading
    verifies size and SHA-256.

    Args:
        connect: returns a context manager that yields a psycopg connection in autocommit mode, such as the
            `connection` method of a pool. Only used inside store, load, discard and sweep.
        inline_limit_bytes: up to this encoded size a value travels with the commit.
        max_bytes: larger values are refused.
        chunk_bytes: size of a row of a large value; about three times as much is held in memory.
        serializer: format of all values; None chooses by the value (see `choose_serializer`).
        name: name under which the app knows it.

    Raises:
        ConfigurationError: the sizes contradict each other.

    Example:
        >>> import contextlib
        >>> postgres = PostgresIO(lambda: contextlib.nullcontext())  # small values need no connection here
        >>> stored = postgres.store([1, 2], OutputAddress("numbers", "", "run", 1, attempt=1, token=1))
        >>> stored.location, stored.payload
        ('inline:1-1', b'[1, 2]')
    """

    def __init__(
        self,
        connect: Connect,
        *,
        inline_limit_bytes: int = 65_536,
        max_bytes: int = 1024 * _MIB,
        chunk_bytes: int = 4 * _MIB,
        serializer: Serializer | None = None,
        name: str = "postgres",
    ) -> None:
        check_serializer(serializer)
        if not callable(connect):
            raise ConfigurationError(
                f"PostgresIO({shown(connect)}): give a function that returns a connection as a context manager."
            )
        largest = whole_number(max_bytes, minimum=0, maximum=_LARGEST_VALUE)
        if largest is None:
            raise ConfigurationError(
                f"PostgresIO: max_bytes ({shown(max_bytes)}) must be between 0 and {_LARGEST_VALUE:,}."
            )
        inline = whole_number(inline_limit_bytes, minimum=0, maximum=largest)
        if inline is None:
            raise ConfigurationError(
                f"PostgresIO: inline_limit_bytes ({shown(inline_limit_bytes)}) must be between 0 and max_bytes "
                f"({largest})."
            )
        chunk = whole_number(chunk_bytes, minimum=1, maximum=_LARGEST_CHUNK)
        if chunk is None:
            raise ConfigurationError(
                f"PostgresIO: chunk_bytes ({shown(chunk_bytes)}) must be between 1 and {_LARGEST_CHUNK}."
            )
        self._connect = connect
        self._limits = Limits(inline, chunk, largest)
        self._serializer = serializer
        self._name = name
        self.codec = Codec(name, serializer, _target_of)

    def dataset(self, asset: str) -> tuple[str, str]:
        """Return the name of an asset's values in catalogs of data: server, database, schema and asset."""
        with self._connect() as connection:
            server, database = server_of(connection)
            return server, f"{database}.{self._project.schema}.{asset}"

    @property
    def name(self) -> str:
        """Name under which the app knows this manager."""
        return self._name

    @property
    def shared(self) -> bool:
        """True: every process that reaches the database can load the values."""
        return True

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        """Encode `value`; write it only when it is too large to travel with the commit.

        Raises:
            SerializationError: the value cannot be written exactly; nothing is left behind.
            StorageError: too large, or the database refused it; nothing is left behind.
        """
        serializer = serializer_for(value, self._serializer)
        data: bytes | None = None
        if type(serializer) is JsonSerializer:
            # JSON is made in memory anyway: a small value needs none of the streaming below
            try:
                data = serializer.dumps(value)
            except SerializationError as error:
                raise error.for_asset(address.asset, address.partition_key) from error.__cause__
            if len(data) <= self._limits.inline_limit_bytes:
                return self._inline(value, serializer, data, address)
        return self._written(
            address,
            lambda writer: encode(
                value, serializer, writer, address=address, io=self._name, location="", encoded=data
            ),
        )

    def store_encoded(self, file: BinaryIO, encoded: StoredOutput, address: OutputAddress) -> StoredOutput:
        """Write the bytes of a value that was encoded elsewhere; small ones travel with the commit.

        Raises:
            StorageError: see `store`.
        """

        def copy(writer: BinaryIO) -> StoredOutput:
            copy_encoded(file, encoded, writer, address)
            return encoded

        return self._written(address, copy)

    def _written(self, address: OutputAddress, write: Callable[[BinaryIO], StoredOutput]) -> StoredOutput:
        """Have a value written to the database, or kept for the commit when it is small."""
        with database_errors("store", address.asset, address.partition_key), ExitStack() as transaction:
            writer = ChunkWriter(self._connect, address, transaction, self._limits, self._project)
            stored = write(writer)
            writer.finish()
            payload = writer.payload
        if payload is None:
            return replace(stored, location=f"{_CHUNKS}:{address.fenced_version}")
        return replace(stored, location=f"{_INLINE}:{address.version}", payload=payload)

    def _inline(self, value: object, serializer: Serializer, data: bytes, address: OutputAddress) -> StoredOutput:
        """Describe a small value that travels with the commit."""
        return make_stored(
            io=self._name,
            location=f"{_INLINE}:{address.version}",
            serializer=serializer.name,
            size_bytes=len(data),
            content_hash=hashlib.sha256(data).hexdigest(),
            value_type=type_name(value),
            payload=data,
        )

    def load(self, stored: StoredOutput) -> object:
        """Read a value back, from the payload when it was read along, else from the tables.

        Raises:
            StorageError: it is gone, not what was stored, or the database does not answer.
            UnsafePickleError: a pickle that this manager has no key for, or that was tampered with.
        """
        if stored.payload is not None:
            return self.codec.decode_bytes(stored.payload, stored)
        with self.open_encoded(stored) as file:
            return self.codec.decode(file, stored)

    @contextmanager
    def open_encoded(self, stored: StoredOutput) -> Iterator[BinaryIO]:
        """Open the bytes of a value, which are not verified yet: on disk when there are many of them.

        Raises:
            StorageError: it is gone, or the database does not answer.
        """
        place, version = _place(stored, "load")
        if stored.payload is not None:
            yield io.BytesIO(stored.payload)
            return
        target, _ = _target_of(stored)
        # On disk when it is large: the serializer may read it in any order, and it is verified first.
        with tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY) as spool:
            file = cast("BinaryIO", spool)
            with database_errors("load", target, ""):
                found = copy_value(self._connect, version, file, inline=place == _INLINE, project=self._project)
            if not found:
                raise StorageError(
                    "load",
                    target,
                    "",
                    "the database does not hold it (it was discarded, or never committed)",
                    kind="missing",
                    remedy="Materialize the asset again.",
                )
            yield file

    def discard(self, stored: StoredOutput) -> None:
        """Delete a version, if it is still there.

        Raises:
            StorageError: the database does not answer or refuses.
        """
        _, version = _place(stored, "delete")
        with database_errors("delete", f"version {version}", ""), self._connect() as connection:
            connection.execute(statement("clear_version", self._project), {"version": version})

    def discard_many(self, stored: Sequence[StoredOutput]) -> None:
        """Delete versions, those that are still there, in one transaction.

        Raises:
            StorageError: the database does not answer or refuses, or a location is not one of this manager.
        """
        versions = [_place(one, "delete")[1] for one in stored]
        with database_errors("delete", f"{len(versions)} versions", ""), self._connect() as connection:
            connection.execute(statement("clear_versions", self._project), {"versions": versions})

    def find(self, stored: Sequence[StoredOutput]) -> list[bool]:
        """Return for each value whether the database holds it.

        Raises:
            StorageError: the database does not answer, or a location is not one that this manager gives.
        """
        versions = [_place(one, "find")[1] for one in stored]
        with (
            database_errors("find", f"{len(versions)} versions", ""),
            self._connect() as connection,
            value_cursor(connection) as cursor,
        ):
            text = statement("find_versions", self._project)
            there = set(cursor.execute(text, {"versions": versions}).fetchall())
        return [version in there for version in versions]

    def erase(self, _asset: str, _partition_key: PartitionKey, versions: Sequence[str]) -> int:
        """Delete versions, committed or not; return how many there were.

        Raises:
            StorageError: the database does not answer or refuses.
        """
        with (
            database_errors("delete", f"{len(versions)} versions", ""),
            self._connect() as connection,
            value_cursor(connection) as cursor,
        ):
            text = statement("erase_versions", self._project)
            return len(set(cursor.execute(text, {"versions": list(versions)}).fetchall()))

    def sweep(self, *, older_than_seconds: float, keep: KeepVersions | None = None) -> int:
        """Delete large values that were stored but never committed.

        Args:
            older_than_seconds: not used; the tables do not say when a chunk was written.
            keep: takes names of versions, returns those that are committed or may still be; None deletes
                nothing.

        Returns:
            How many rows of chunks were deleted.
        """
        if keep is None:
            return 0
        project, deleted, after = self._project, 0, ""
        with (
            database_errors("delete", "versions without a commit", ""),
            self._connect() as connection,
            value_cursor(connection) as cursor,
        ):
            while True:
                page = {"after": after, "page_size": _PAGE_SIZE}
                versions: list[str] = cursor.execute(statement("chunked_versions", project), page).fetchall()
                if not versions:
                    return deleted
                after = versions[-1]
                unwanted = sorted(set(versions).difference(keep(versions)))
                if unwanted:
                    doomed = {"versions": unwanted}
                    deleted += cursor.execute(statement("delete_versions", project), doomed).rowcount


def _target_of(stored: StoredOutput) -> tuple[str, str]:
    """Return what is known of a value, for errors: its version, and no partition."""
    return f"version {_place(stored, 'load')[1]}", ""


def _place(stored: StoredOutput, action: str) -> tuple[str, str]:
    place, colon, version = stored.location.partition(":")
    if place not in (_INLINE, _CHUNKS) or not colon:
        raise not_ours(stored, action)
    return place, version
