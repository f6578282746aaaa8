"""Pickles, only by explicit choice, and only those that carry our signature."""

from __future__ import annotations

import hashlib
import hmac
import io
import pickle
from collections.abc import Buffer, Iterator
from typing import Any, BinaryIO

from flowstone.core.declaring import shown
from flowstone.core.output import type_name
from flowstone.errors import ConfigurationError, FlowStoneError, SerializationError, UnsafePickleError

_HEADER = b"FlowStone signed pickle 1\n"
_FRAME_BYTES = 256 * 1024
_MAC_BYTES = hashlib.sha256().digest_size
_LAST = b"\x01"
_MORE = b"\x00"
_MIN_KEY = 16


class PickleSerializer:
    """Writes any picklable object, signed with HMAC-SHA256; refuses to unpickle what the key did not sign.

    Unpickling runs code, so this is never chosen automatically. The signature proves that a holder of the key
    wrote the bytes; it does not hide them. The whole file is verified before anything of it is unpickled,
    in bounded memory; its frames are verified once more as they are unpickled, so a file that is exchanged
    in between is refused too.

    Args:
        key: secret of at least 16 random bytes, the same for every process that stores or loads; for example
            from `secrets.token_bytes(32)`, kept outside the code.
        pickler: a module with another `Pickler`, such as `cloudpickle` or `dill`, for functions and classes that
            cannot be imported by name. Whoever loads needs it installed, in a version that understands this one.

    Raises:
        ConfigurationError: the key is too short, or the module has no pickler.

    Example:
        >>> import io
        >>> serializer = PickleSerializer(key=b"0123456789abcdef")
        >>> file = io.BytesIO()
        >>> serializer.write({1, 2}, file)
        >>> serializer.read(io.BytesIO(file.getvalue()))
        {1, 2}
    """

    def __init__(self, key: bytes, *, pickler: Any = pickle) -> None:
        given: object = key
        if not isinstance(given, bytes) or len(given) < _MIN_KEY:
            raise ConfigurationError(
                f"PickleSerializer needs a key of at least {_MIN_KEY} bytes. Make one with "
                "secrets.token_bytes(32) and give the same to every process."
            )
        self._key = key
        if not callable(getattr(pickler, "Pickler", None)):
            raise ConfigurationError(
                f"PickleSerializer(pickler={shown(pickler)}): give a module with a Pickler, such as cloudpickle."
            )
        self._pickler = pickler.Pickler
        self._unpickler = getattr(pickler, "Unpickler", pickle.Unpickler)

    def __repr__(self) -> str:
        return "PickleSerializer(key=***)"

    @property
    def name(self) -> str:
        """`"pickle"`."""
        return "pickle"

    @property
    def extension(self) -> str:
        """`".pickle"`."""
        return ".pickle"

    def accepts(self, value: object) -> bool:
        """Return True: what cannot be pickled is only known by trying."""
        return True

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the signed pickle.

        Raises:
            SerializationError: the value cannot be pickled.
        """
        writer = _FrameWriter(file, self._key)
        pickler = self._pickler(writer, protocol=5)
        try:
            pickler.dump(value)
        except (OSError, FlowStoneError):
            raise  # from the file, not from the value
        except Exception as error:
            raise SerializationError(
                f"Pickle cannot hold this value ({error})",
                path="$",
                type_name=type_name(value),
                remedy="Return picklable data; functions and classes must be importable by name, or choose "
                "PickleSerializer(key=..., pickler=cloudpickle).",
            ) from error
        writer.finish()

    def read(self, file: BinaryIO) -> object:
        """Verify the whole file, then unpickle it.

        Raises:
            UnsafePickleError: not signed, signed with another key, changed or cut short.
        """
        if not file.seekable():
            file = io.BytesIO(file.read())
        start = file.tell()
        for _ in _frames(file, self._key):
            pass
        file.seek(start)
        stream = _FrameReader(file, self._key)
        # Signed by a holder of the key: verified as a whole above, and frame by frame while it is read here.
        value: object = self._unpickler(io.BufferedReader(stream, _FRAME_BYTES)).load()
        return value


def _chain(key: bytes, previous: bytes, flag: bytes, data: Buffer) -> bytes:
    """Sign one frame together with everything before it, so that frames cannot be dropped, moved or mixed."""
    signature = hmac.new(key, previous + flag, hashlib.sha256)
    signature.update(data)
    return signature.digest()


class _FrameWriter:
    """Cuts what the pickler writes into frames: flag, length (4 bytes), data, signature."""

    def __init__(self, sink: BinaryIO, key: bytes) -> None:
        self._sink = sink
        self._key = key
        self._buffer = bytearray()
        self._previous = _chain(key, b"", b"", _HEADER)
        sink.write(_HEADER)

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
        for start in range(0, view.nbytes, _FRAME_BYTES):
            self._buffer += view[start : start + _FRAME_BYTES]
            while len(self._buffer) > _FRAME_BYTES:
                self._emit(_MORE, bytes(self._buffer[:_FRAME_BYTES]))
                del self._buffer[:_FRAME_BYTES]
        return view.nbytes

    def finish(self) -> None:
        self._emit(_LAST, bytes(self._buffer))

    def _emit(self, flag: bytes, data: bytes) -> None:
        self._previous = _chain(self._key, self._previous, flag, data)
        self._sink.write(b"".join((flag, len(data).to_bytes(4, "big"), data, self._previous)))


class _FrameReader(io.RawIOBase):
    """Gives out the data of frames, each only after its signature was found right."""

    def __init__(self, source: BinaryIO, key: bytes) -> None:
        super().__init__()
        self._frames = _frames(source, key)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Buffer, /) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._frames, b""))
        view = memoryview(target).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _frames(source: BinaryIO, key: bytes) -> Iterator[bytes]:
    """Yield the data of each frame once its signature was found right; raise at the first wrong one."""
    if source.read(len(_HEADER)) != _HEADER:
        raise UnsafePickleError("it is not signed")
    previous = _chain(key, b"", b"", _HEADER)
    flag = _MORE
    while flag != _LAST:
        head = source.read(5)
        flag, length = head[:1], int.from_bytes(head[1:], "big")
        if len(head) != 5 or length > _FRAME_BYTES:
            raise UnsafePickleError("it was cut short or changed")
        data = source.read(length)
        previous = _chain(key, previous, flag, data)
        if not hmac.compare_digest(source.read(_MAC_BYTES), previous):
            raise UnsafePickleError("its signature is wrong (it was changed, or written with another key)")
        if flag == _LAST and source.read(1):
            raise UnsafePickleError("something was appended to it")
        yield data
