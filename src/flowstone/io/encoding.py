"""The steps that every IO manager that writes bytes shares: encode with naming errors, verify, decode."""

from __future__ import annotations

from typing import BinaryIO

from flowstone.core.output import OutputAddress, StoredOutput, type_name
from flowstone.errors import FlowStoneError, SerializationError, StorageError
from flowstone.io.choice import find_serializer
from flowstone.io.streams import HashingWriter, matches
from flowstone.protocols import Serializer


def encode(
    value: object, serializer: Serializer, sink: BinaryIO, *, address: OutputAddress, io: str, location: str
) -> StoredOutput:
    """Write `value` to `sink` and return its description.

    Args:
        value: what to write.
        serializer: how.
        sink: where to.
        address: whose value it is, for the error.
        io: name of the IO manager, for the description.
        location: where the bytes will lie, for the description.

    Raises:
        SerializationError: naming the asset.
    """
    writer = HashingWriter(sink)
    try:
        serializer.write(value, writer)
    except SerializationError as error:
        raise error.for_asset(address.asset, address.partition) from error.__cause__
    return StoredOutput(
        io=io,
        location=location,
        serializer=serializer.name,
        size_bytes=writer.size_bytes,
        content_hash=writer.content_hash,
        value_type=type_name(value),
    )


def decode(
    file: BinaryIO, stored: StoredOutput, chosen: Serializer | None, *, target: str, partition: str = ""
) -> object:
    """Verify size and hash of `file`, then return the value in it.

    Args:
        file: seekable, at any position.
        stored: what `encode` returned.
        chosen: the serializer given to the IO manager, if any.
        target: asset name or what else is known of the value, for the error.
        partition: encoded partition key, for the error.

    Raises:
        StorageError: the bytes are not those that were written, or cannot be understood.
    """
    if not matches(file, size_bytes=stored.size_bytes, content_hash=stored.content_hash):
        raise StorageError(
            "load",
            target,
            partition,
            f"the bytes at {stored.location!r} are not those that were stored (size or SHA-256 differ)",
            kind="corrupt",
            remedy="Restore them from a backup, or materialize the asset again.",
        )
    serializer = find_serializer(stored.serializer or "", chosen)
    try:
        return serializer.read(file)
    except (FlowStoneError, OSError, MemoryError):
        raise
    except Exception as error:
        raise StorageError(
            "load",
            target,
            partition,
            f"the {serializer.name} at {stored.location!r} cannot be read ({type(error).__name__}: {error})",
            kind="corrupt",
            remedy="It may come from another version; materialize the asset again.",
        ) from error
