"""Values in PostgreSQL: small ones travel with the commit, large ones in chunks."""

from __future__ import annotations

import copy
import hashlib
import io
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from typing import BinaryIO, Self, cast

from flowstone.core.output import OutputAddress, StoredOutput, type_name
from flowstone.core.project import Project
from flowstone.errors import ConfigurationError, SerializationError, StorageError
from flowstone.io.choice import choose_serializer
from flowstone.io.chunks import ChunkWriter, Connect, Limits, copy_value, database_errors, value_cursor
from flowstone.io.encoding import decode, encode
from flowstone.io.json_serializer import JsonSerializer
from flowstone.io.statements import statement
from flowstone.protocols import KeepVersions, Serializer

_MIB = 1024 * 1024
_LARGEST_CHUNK = 256 * _MIB  # A row cannot exceed 1 GiB, and each one passes through memory as a whole.
_KEPT_IN_MEMORY = 16 * _MIB
_PAGE_SIZE = 1000
_INLINE = "inline"
_CHUNKS = "chunks"


class PostgresIO:
    """Stores values in PostgreSQL, so that a pipeline needs no other storage.

    A value that is small once encoded is not written here at all: it is handed over as
    `StoredOutput.payload` and written by the transaction that commits the success. A larger one is streamed
    in chunks, in a transaction of its own, under the version of its attempt. Loading verifies size and
    SHA-256.

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
        ('inline:step-1', b'[1, 2]')
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
        if not 0 <= inline_limit_bytes <= max_bytes:
            raise ConfigurationError(
                f"PostgresIO: inline_limit_bytes ({inline_limit_bytes}) must be between 0 and max_bytes "
                f"({max_bytes})."
            )
        if not 1 <= chunk_bytes <= _LARGEST_CHUNK:
            raise ConfigurationError(
                f"PostgresIO: chunk_bytes ({chunk_bytes}) must be between 1 and {_LARGEST_CHUNK}."
            )
        self._connect = connect
        self._limits = Limits(inline_limit_bytes, chunk_bytes, max_bytes)
        self._serializer = serializer
        self._name = name
        self._project = Project()

    def in_project(self, project: Project) -> Self:
        """Return this manager for the tables of a project; an app calls it with its own."""
        manager = copy.copy(self)
        manager._project = project  # noqa: SLF001 - of our own copy
        return manager

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
        serializer = self._serializer or choose_serializer(value)
        if type(serializer) is JsonSerializer:
            # JSON is made in memory anyway: a small value needs none of the streaming below
            try:
                data = serializer.dumps(value)
            except SerializationError as error:
                raise error.for_asset(address.asset, address.partition) from error.__cause__
            if len(data) <= self._limits.inline_limit_bytes:
                return self._inline(value, serializer, data, address)
        with database_errors("store", address.asset, address.partition), ExitStack() as transaction:
            writer = ChunkWriter(self._connect, address, transaction, self._limits, self._project)
            location = f"{_CHUNKS}:{address.version}"
            stored = encode(value, serializer, writer, address=address, io=self._name, location=location)
            writer.finish()
            payload = writer.payload
        if payload is None:
            return stored
        return replace(stored, location=f"{_INLINE}:{address.version}", payload=payload)

    def _inline(self, value: object, serializer: Serializer, data: bytes, address: OutputAddress) -> StoredOutput:
        """Describe a small value that travels with the commit."""
        return StoredOutput(
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
        place, version = self._place(stored, "load")
        target = f"version {version}"
        if stored.payload is not None:
            return decode(io.BytesIO(stored.payload), stored, self._serializer, target=target)
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
            return decode(file, stored, self._serializer, target=target)

    def discard(self, stored: StoredOutput) -> None:
        """Delete a version, if it is still there.

        Raises:
            StorageError: the database does not answer or refuses.
        """
        _, version = self._place(stored, "delete")
        with database_errors("delete", f"version {version}", ""), self._connect() as connection:
            connection.execute(statement("clear_version", self._project), {"version": version})

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

    def _place(self, stored: StoredOutput, action: str) -> tuple[str, str]:
        place, colon, version = stored.location.partition(":")
        if place not in (_INLINE, _CHUNKS) or not colon:
            raise StorageError(
                action,
                f"location {stored.location!r}",
                "",
                "the location was refused, it is not one that this manager gives",
                kind="unsafe",
                remedy="The recorded location was changed; materialize the asset again.",
            )
        return place, version
