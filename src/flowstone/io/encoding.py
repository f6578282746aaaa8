"""From a value to verified bytes and back: the steps that every IO manager that writes bytes shares.

`HashingWriter` counts and hashes what passes; `choose_serializer` picks the format; `encode` and `decode` put it
together with errors that name the asset and the remedy; `Codec` is both for one IO manager, in any process.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Buffer, Callable
from dataclasses import dataclass
from typing import BinaryIO

from flowstone.core.by_reference import ScanKind, kind_of_type
from flowstone.core.declaring import no_such_part
from flowstone.core.output import OutputAddress, StoredOutput, type_name
from flowstone.errors import (
    ConfigurationError,
    FlowStoneError,
    SerializationError,
    StorageError,
    UnsafePickleError,
    did_you_mean,
)
from flowstone.io.by_reference import ScanSerializer, scanned_kind
from flowstone.io.json import JsonSerializer
from flowstone.io.serializers import BytesSerializer, NumpySerializer, TextSerializer
from flowstone.io.tables import ParquetSerializer
from flowstone.protocols import Serializer

_PIECE = 1024 * 1024


class HashingWriter(io.BufferedIOBase, BinaryIO):
    """Write-only binary file that passes bytes on and keeps their SHA-256 and size.

    It cannot be sought, so a serializer has to write front to back; that is what makes streaming possible.

    Args:
        sink: where the bytes go.

    Example:
        >>> sink = io.BytesIO()
        >>> writer = HashingWriter(sink)
        >>> writer.write(b"abc")
        3
        >>> writer.size_bytes, writer.content_hash[:8]
        (3, 'ba7816bf')
    """

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self._sink = sink
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def size_bytes(self) -> int:
        """Number of bytes written so far."""
        return self._size

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of the bytes written so far."""
        return self._hash.hexdigest()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Pass `data` on as a whole and return its size in bytes."""
        view = memoryview(data)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        view = view.cast("B") if view.nbytes else memoryview(b"")
        for start in range(0, view.nbytes, _PIECE):
            # in pieces: a spooled file keeps what it is given at once in memory, however much that is
            piece = view[start : start + _PIECE]
            self._hash.update(piece)
            self._sink.write(piece)
        self._size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Return the number of bytes written so far (pyarrow and zipfile ask for it)."""
        return self._size


def matches(file: BinaryIO, *, size_bytes: int | None, content_hash: str | None) -> bool:
    """Return whether the rest of `file` has this size and SHA-256; what is None is not compared.

    Leaves the file at its start.

    Example:
        >>> matches(io.BytesIO(b"abc"), size_bytes=3, content_hash=None)
        True
        >>> matches(io.BytesIO(b"ab"), size_bytes=3, content_hash=None)
        False
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size_bytes is not None and size != size_bytes:
        return False
    if content_hash is None:
        return True
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(size, 1024 * 1024) or 1))
    # Not hashlib.file_digest: a SpooledTemporaryFile fails its check for a readable file before Python 3.13.
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # every binary file here has it
        digest.update(buffer[:count])
    file.seek(0)
    return digest.hexdigest() == content_hash


_JSON = JsonSerializer()
_SCANS = tuple([ScanSerializer(kind) for kind in ScanKind])
_AUTOMATIC: tuple[Serializer, ...] = (
    BytesSerializer(),
    TextSerializer(),
    NumpySerializer(),
    ParquetSerializer(),
    *_SCANS,
    _JSON,
)
_ONLY_JSON = frozenset({type(None), bool, int, float, list, dict, tuple})
"""Types that no other serializer wants, so that none is asked."""
_BY_NAME = {serializer.name: serializer for serializer in _AUTOMATIC}


def choose_serializer(value: object) -> Serializer:
    """Return the natural format of a value: bytes, text, NumPy array, table, else JSON.

    Pickle is never chosen. A value that nothing can hold gets JSON, whose error names the path and a remedy.

    Args:
        value: what an asset returned.

    Example:
        >>> choose_serializer(b"raw").name, choose_serializer("text").name, choose_serializer([1]).name
        ('bytes', 'text', 'json')
    """
    if type(value) in _ONLY_JSON:
        return _JSON
    for serializer in _AUTOMATIC:
        if serializer.accepts(value):
            return serializer
    return _JSON


def serializer_for(value: object, chosen: Serializer | None) -> Serializer:
    """Return the serializer of a value: the one given to the IO manager, or its natural format.

    What is not read yet (a LazyFrame, a Dataset, a relation) is written as it is read, whatever was chosen: the
    bytes of its plan would be no value.

    Example:
        >>> serializer_for("text", JsonSerializer()).name, serializer_for("text", None).name
        ('json', 'text')
    """
    if chosen is None:
        return choose_serializer(value)
    if kind_of_type(type(value)) is not None:
        return choose_serializer(value)
    return chosen


def check_serializer(chosen: Serializer | None) -> None:
    """Refuse what is no serializer, or one whose extension cannot be the end of a name.

    Args:
        chosen: the one given to an IO manager, if any.

    Raises:
        ConfigurationError: says what it has to be.

    Example:
        >>> check_serializer(JsonSerializer())
    """
    if chosen is None:
        return
    if problem := no_such_part("serializer", chosen, ["name", "extension", "accepts", "read", "write"]):
        raise ConfigurationError(f"serializer=...: {problem}")
    if not re.fullmatch(r"(\.[a-z0-9]+)+", chosen.extension):
        raise ConfigurationError(
            f"The serializer {chosen.name!r} has the extension {chosen.extension!r}. "
            "Use a dot and small letters or digits, such as '.csv'."
        )


def find_serializer(name: str, chosen: Serializer | None = None) -> Serializer:
    """Return the serializer that reads values written under `name`.

    The built-in ones are always found, so values stay readable after an IO manager got another serializer.

    Args:
        name: name recorded with the value.
        chosen: the serializer given to the IO manager, if any; wins when it carries the name.

    Raises:
        UnsafePickleError: a pickle, and the IO manager was given no PickleSerializer.
        ConfigurationError: no serializer carries the name.

    Example:
        >>> find_serializer("json").extension
        '.json'
    """
    if chosen is not None and chosen.name == name:
        return chosen
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name == "pickle":
        raise UnsafePickleError("the value was stored as a pickle and this IO manager was given no key")
    raise ConfigurationError(
        f"The value was stored by the serializer {name!r}, which is not known here."
        f"{did_you_mean(name, _BY_NAME)} Pass it to the IO manager as serializer=..."
    )


def encode(
    value: object,
    serializer: Serializer,
    sink: BinaryIO,
    *,
    address: OutputAddress,
    io: str,
    location: str,
    encoded: bytes | None = None,
) -> StoredOutput:
    """Write `value` to `sink` and return its description.

    Args:
        value: what to write.
        serializer: how.
        sink: where to.
        address: whose value it is, for the error.
        io: name of the IO manager, for the description.
        location: where the bytes will lie, for the description.
        encoded: what the serializer made of it already.

    Raises:
        SerializationError: naming the asset.
    """
    writer = HashingWriter(sink)
    try:
        if encoded is None:
            serializer.write(value, writer)
        else:
            writer.write(encoded)
    except SerializationError as error:
        raise error.for_asset(address.asset, address.partition_key) from error.__cause__
    return StoredOutput(
        io=io,
        location=location,
        serializer=serializer.name,
        size_bytes=writer.size_bytes,
        content_hash=writer.content_hash,
        value_type=type_name(value),
    )


@dataclass(frozen=True, slots=True)
class Codec:
    """Values to verified bytes and back for one IO manager, in this process or in another one.

    Args:
        io: name of the IO manager.
        serializer: the one given to it, if any.
        target_of: returns the asset, or what else is known of a stored value, and its partition key, for errors; a
            function of a module, which can be pickled.

    Example:
        >>> codec = Codec("files", None, lambda stored: (stored.location, ""))
        >>> file = io.BytesIO()
        >>> encoded = codec.encode([1, 2], file, OutputAddress("numbers", "", "run", 1, attempt=1, token=1))
        >>> encoded.size_bytes, codec.decode(file, encoded)
        (6, [1, 2])
    """

    io: str
    serializer: Serializer | None
    target_of: Callable[[StoredOutput], tuple[str, str]]

    def encode(self, value: object, file: BinaryIO, address: OutputAddress) -> StoredOutput:
        """Write a value, and describe it but for its location.

        Raises:
            SerializationError: naming the asset.
        """
        serializer = serializer_for(value, self.serializer)
        return encode(value, serializer, file, address=address, io=self.io, location="")

    def decode(self, file: BinaryIO, stored: StoredOutput) -> object:
        """Verify and return a value; see `decode`."""
        target, partition = self.target_of(stored)
        return decode(file, stored, self.serializer, target=target, partition=partition)

    def decode_bytes(self, data: bytes, stored: StoredOutput) -> object:
        """Verify and return a value whose bytes are at hand; see `decode`."""
        if stored.serializer == _JSON.name and len(data) == stored.size_bytes:
            serializer = find_serializer(_JSON.name, self.serializer)
            if type(serializer) is JsonSerializer and hashlib.sha256(data).hexdigest() == stored.content_hash:
                self.target_of(stored)
                try:
                    return serializer.loads(data)
                except ValueError:
                    pass  # what is wrong with it is said below
        return self.decode(io.BytesIO(data), stored)

    def can_decode(self, stored: StoredOutput) -> bool:
        """Whether the bytes alone make the value: not those of a scan."""
        return scanned_kind(stored) is None

    def extension_of(self, encoded: StoredOutput) -> str:
        """Return the extension of the serializer that wrote a value."""
        return find_serializer(encoded.serializer or "", self.serializer).extension


def copy_encoded(file: BinaryIO, encoded: StoredOutput, target: BinaryIO, address: OutputAddress) -> None:
    """Copy the bytes of a value that was encoded elsewhere; raise a StorageError when they are not all there."""
    check_encoded(file, encoded, address)
    shutil.copyfileobj(file, target, _PIECE)


def check_encoded(file: BinaryIO, encoded: StoredOutput, address: OutputAddress) -> None:
    """Check that a file has as many bytes as were encoded elsewhere, and leave it at its start.

    Raises:
        StorageError: it has not.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size != encoded.size_bytes:
        raise StorageError(
            "store",
            address.asset,
            address.partition_key,
            f"{size:,} of {encoded.size_bytes:,} bytes came from the process of the function",
            kind="other",
            remedy="Look at the disk with the temporary files; the attempt can be repeated.",
        )


def not_ours(stored: StoredOutput, action: str) -> StorageError:
    """Return the error for a location that is none of those that a manager gives."""
    return StorageError(
        action,
        f"location {stored.location!r}",
        "",
        "the location was refused, it is not one that this manager gives",
        kind="unsafe",
        remedy="The recorded location was changed; materialize the asset again.",
    )


def corrupt(stored: StoredOutput, target: str, partition: str) -> StorageError:
    """Return the error for bytes that are others than those that were stored."""
    return StorageError(
        "load",
        target,
        partition,
        f"the bytes at {stored.location!r} are not those that were stored (size or SHA-256 differ)",
        kind="corrupt",
        remedy="Restore them from a backup, or materialize the asset again.",
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
        raise corrupt(stored, target, partition)
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
