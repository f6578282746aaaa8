"""Serializers of one line each: NumPy arrays in NumPy's own format, text and bytes as they are."""

from __future__ import annotations

import codecs
import sys
from typing import BinaryIO

from flowstone.core.output import type_name
from flowstone.errors import MissingExtraError, SerializationError

# Enough for a structured type of thousands of fields; NumPy's default of 10,000 guards against
# untrusted files, ours were written by `write`.
_MAX_HEADER = 1_000_000
_TEXT_PIECE = 1 << 23


class NumpySerializer:
    """Writes NumPy arrays as `.npy`, never with pickle; dtype, shape and memory order are kept.

    Example:
        >>> import io, numpy
        >>> file = io.BytesIO()
        >>> NumpySerializer().write(numpy.arange(3), file)
        >>> NumpySerializer().read(io.BytesIO(file.getvalue()))
        array([0, 1, 2])
    """

    @property
    def name(self) -> str:
        """`"numpy"`."""
        return "numpy"

    @property
    def extension(self) -> str:
        """`".npy"`."""
        return ".npy"

    def accepts(self, value: object) -> bool:
        """Return whether the value is a plain array (a masked array or a matrix would not come back as one)."""
        numpy = sys.modules.get("numpy")
        return numpy is not None and type(value) in (numpy.ndarray, numpy.memmap)

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the array.

        Raises:
            SerializationError: not a plain array, or one of Python objects.
        """
        if not self.accepts(value):
            raise _refusal("The numpy serializer takes plain arrays only", value, "Return numpy.asarray(value).")
        import numpy

        array = numpy.asarray(value)
        if array.dtype.hasobject:
            raise _refusal(
                f"An array of Python objects (dtype {array.dtype}) cannot be written without pickle",
                value,
                "Give it a numeric, fixed-width text or datetime dtype, or return value.tolist().",
            )
        try:
            numpy.lib.format.write_array(file, array, allow_pickle=False)
        except (ValueError, TypeError) as error:
            raise _refusal(f"NumPy cannot write this array ({error})", value, "Change its dtype.") from error

    def read(self, file: BinaryIO) -> object:
        """Return the array.

        Raises:
            MissingExtraError: NumPy is not installed.
        """
        try:
            import numpy
        except ModuleNotFoundError as error:
            raise MissingExtraError("numpy", None, "Loading a stored array") from error
        array: object = numpy.lib.format.read_array(file, allow_pickle=False, max_header_size=_MAX_HEADER)
        return array


def _refusal(problem: str, value: object, remedy: str) -> SerializationError:
    return SerializationError(problem, path="$", type_name=type_name(value), remedy=remedy)


class TextSerializer:
    """Writes a `str` as UTF-8; lone surrogates survive.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> TextSerializer().write("grün", file)
        >>> file.getvalue()
        b'gr\\xc3\\xbcn'
    """

    @property
    def name(self) -> str:
        """`"text"`."""
        return "text"

    @property
    def extension(self) -> str:
        """`".txt"`."""
        return ".txt"

    def accepts(self, value: object) -> bool:
        """Return whether the value is a `str` (no subclass: it would come back as `str`)."""
        return type(value) is str

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the text.

        Raises:
            SerializationError: the value is not a `str`.
        """
        if not isinstance(value, str) or type(value) is not str:
            raise SerializationError(
                "The text serializer takes str only",
                path="$",
                type_name=type_name(value),
                remedy="Return a str, or leave the choice of the serializer to FlowStone.",
            )
        # encoded as a whole, it would be in memory twice
        pieces = (value[start : start + _TEXT_PIECE] for start in range(0, len(value), _TEXT_PIECE))
        file.writelines(piece.encode("utf-8", "surrogatepass") for piece in pieces)

    def read(self, file: BinaryIO) -> object:
        """Return the text."""
        # Read and decoded as a whole, it would be in memory twice. A local text that is added to grows in place:
        # "".join and io.StringIO make it anew.
        decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
        text = ""
        while piece := file.read(_TEXT_PIECE):
            text += decoder.decode(piece)
        return text + decoder.decode(b"", final=True)


class BytesSerializer:
    """Writes bytes-like objects as they are; they come back as `bytes`.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> BytesSerializer().write(bytearray(b"ab"), file)
        >>> file.getvalue()
        b'ab'
    """

    @property
    def name(self) -> str:
        """`"bytes"`."""
        return "bytes"

    @property
    def extension(self) -> str:
        """`".bin"`."""
        return ".bin"

    def accepts(self, value: object) -> bool:
        """Return whether the value is bytes, a bytearray or a memoryview."""
        return type(value) in (bytes, bytearray, memoryview)

    def write(self, value: object, file: BinaryIO) -> None:
        """Write the bytes.

        Raises:
            SerializationError: the value is not bytes-like.
        """
        if not isinstance(value, bytes | bytearray | memoryview):
            raise SerializationError(
                "The bytes serializer takes bytes, bytearray and memoryview only",
                path="$",
                type_name=type_name(value),
                remedy="Return bytes, or leave the choice of the serializer to FlowStone.",
            )
        file.write(value)

    def read(self, file: BinaryIO) -> object:
        """Return the bytes."""
        return file.read()
