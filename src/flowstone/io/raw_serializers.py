"""Text and bytes as they are, without any wrapping."""

from __future__ import annotations

from typing import BinaryIO

from flowstone.core.output import type_name
from flowstone.errors import SerializationError


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
        file.write(value.encode("utf-8", "surrogatepass"))

    def read(self, file: BinaryIO) -> object:
        """Return the text."""
        return file.read().decode("utf-8", "surrogatepass")


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
