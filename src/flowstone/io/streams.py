"""Binary streams that count and hash what passes through them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Buffer
from typing import BinaryIO


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
        self._hash.update(view)
        self._sink.write(view)
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
    buffer = memoryview(bytearray(1024 * 1024))
    # Not hashlib.file_digest: a SpooledTemporaryFile fails its check for a readable file before Python 3.13.
    while count := file.readinto(buffer):  # type: ignore[attr-defined]  # every binary file here has it
        digest.update(buffer[:count])
    file.seek(0)
    return digest.hexdigest() == content_hash
