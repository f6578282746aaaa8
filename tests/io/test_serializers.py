from __future__ import annotations

import array
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.errors import SerializationError
from flowstone.io import BytesSerializer, NumpySerializer, TextSerializer, choose_serializer, serializers
from flowstone.io.encoding import HashingWriter


def round_trip(value: object) -> np.ndarray:
    file = io.BytesIO()
    NumpySerializer().write(value, HashingWriter(file))
    loaded = NumpySerializer().read(io.BytesIO(file.getvalue()))
    assert isinstance(loaded, np.ndarray)
    return loaded


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3.5),
        np.zeros((0, 4), dtype="f4"),
        np.array([np.nan, -0.0, np.inf]),
        np.array(["grün", "x"]),
        np.array(["2024-01-01", "NaT"], dtype="M8[ns]"),
        np.array([(1, 2.0)], dtype=[("a", ">i2"), ("b", "f8")]),
        np.arange(10)[::-2],
        np.array([True, False]),
    ],
)
def test_arrays_come_back(value: np.ndarray) -> None:
    loaded = round_trip(value)
    np.testing.assert_array_equal(loaded, value)
    assert loaded.dtype == value.dtype
    assert loaded.flags.f_contiguous == value.flags.f_contiguous or value.ndim < 2
    assert choose_serializer(value).name == "numpy"


def test_many_fields_come_back() -> None:
    value = np.zeros(1, dtype=[(f"column_{n:05}", "f8") for n in range(3000)])
    assert round_trip(value).dtype == value.dtype


def test_a_memory_map_comes_back_as_an_array(tmp_path: Path) -> None:
    value = np.memmap(tmp_path / "map", dtype="i4", mode="w+", shape=(3,))
    value[:] = [1, 2, 3]
    loaded = round_trip(value)
    assert type(loaded) is np.ndarray
    assert loaded.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()]),
        np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]),
        np.array(["a"], dtype=np.dtypes.StringDType()),
        np.ma.masked_array([1, 2], mask=[True, False]),
        [1, 2],
    ],
)
def test_refused(value: object) -> None:
    file = io.BytesIO()
    with pytest.raises(SerializationError):
        NumpySerializer().write(value, file)
    assert file.getvalue() == b""


def test_a_pickle_inside_is_refused() -> None:
    file = io.BytesIO()
    np.save(file, np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        NumpySerializer().read(io.BytesIO(file.getvalue()))


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
    assert writer.size_bytes == writer.tell() == len(file.getvalue())


def test_other_types_are_refused() -> None:
    class Text(str):
        __slots__ = ()

    for serializer, value in ((TextSerializer(), b""), (TextSerializer(), Text()), (BytesSerializer(), "")):
        assert not serializer.accepts(value)
        with pytest.raises(SerializationError, match="only at"):
            serializer.write(value, io.BytesIO())


def test_long_text_comes_back_across_the_pieces_in_which_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serializers, "_TEXT_PIECE", 3)
    for text in ("plain", "gr\u00fcn \U0001f600 \ud800 \udc00x", "a\r\nb\rc\n", "", "\x00", "\ud83d"):
        file = io.BytesIO()
        TextSerializer().write(text, file)
        assert TextSerializer().read(io.BytesIO(file.getvalue())) == text
    with pytest.raises(UnicodeDecodeError):
        TextSerializer().read(io.BytesIO(b"cut \xf0\x9f"))
