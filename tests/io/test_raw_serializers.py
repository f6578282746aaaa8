from __future__ import annotations

import array
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.errors import SerializationError
from flowstone.io import BytesSerializer, TextSerializer
from flowstone.io.encoding import HashingWriter


@given(st.text(st.characters()))
def test_text_comes_back(text: str) -> None:
    file = io.BytesIO()
    TextSerializer().write(text, file)
    assert TextSerializer().read(io.BytesIO(file.getvalue())) == text


def test_text_keeps_line_ends_and_surrogate_pairs() -> None:
    for text in ("a\r\nb\rc\n", "\ud83d\ude00", "😀"):
        file = io.BytesIO()
        TextSerializer().write(text, file)
        assert TextSerializer().read(io.BytesIO(file.getvalue())) == text


@pytest.mark.parametrize(
    "value",
    [
        b"\x00\xff",
        bytearray(b"ab"),
        memoryview(b"abcdef")[::2],
        memoryview(array.array("d", [1, 2])),
        memoryview(b""),
        memoryview(array.array("d")),
    ],
)
def test_bytes_come_back(value: bytes) -> None:
    file = io.BytesIO()
    writer = HashingWriter(file)
    BytesSerializer().write(value, writer)
    assert file.getvalue() == bytes(memoryview(value).tobytes())
    assert writer.size_bytes == writer.report() == len(file.getvalue())


def test_other_types_are_refused() -> None:
    class Text(str):
        __slots__ = ()

    for serializer, value in ((TextSerializer(), b""), (TextSerializer(), Text()), (BytesSerializer(), "")):
        assert not serializer.accepts(value)
        with pytest.raises(SerializationError, match="only at"):
            serializer.write(value, io.BytesIO())
