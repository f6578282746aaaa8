from __future__ import annotations

import io
import pickle
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.errors import ConfigurationError, SerializationError, UnsafePickleError
from flowstone.io import PickleSerializer, choose_serializer, find_serializer

KEY = b"0123456789abcdef"
ran: list[str] = []


def run(what: str) -> str:
    ran.append(what)
    return what


class Trap:
    def __reduce__(self) -> Any:
        return run, ("code",)


def write(value: object, key: bytes = KEY) -> bytes:
    file = io.BytesIO()
    PickleSerializer(key).write(value, file)
    return file.getvalue()


def read(data: bytes, key: bytes = KEY) -> object:
    return PickleSerializer(key).read(io.BytesIO(data))


@pytest.mark.parametrize("size", [0, 1, 1000, 262_100, 262_144, 262_145, 1_000_000])
def test_comes_back(size: int) -> None:
    value = {"a": {1, 2}, "b": bytes(size), "c": [b"x" * size, PickleSerializer]}
    assert read(write(value)) == value


def test_equal_values_give_equal_bytes() -> None:
    assert write([1, "a"]) == write([1, "a"])


SIGNED = write([Trap(), b"x" * 600_000])


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_any_change_is_refused_before_anything_runs(position: int, change: int) -> None:
    ran.clear()
    tampered = bytearray(SIGNED)
    tampered[position] ^= change
    with pytest.raises(UnsafePickleError):
        read(bytes(tampered))
    with pytest.raises(UnsafePickleError):
        read(SIGNED[:position])
    assert ran == []


def test_other_keys_unsigned_and_appended_are_refused() -> None:
    ran.clear()
    for data in (write(Trap(), b"another key 1234"), pickle.dumps(Trap()), b"", SIGNED + b"x", SIGNED + SIGNED):
        with pytest.raises(UnsafePickleError):
            read(data)
    assert ran == []
    read(SIGNED)
    assert ran == ["code"]


def test_frames_of_two_files_cannot_be_mixed() -> None:
    first, second = write(b"a" * 600_000), write(b"b" * 600_000)
    cut = first.index(b"\n") + 1 + 5 + 262_144 + 32
    with pytest.raises(UnsafePickleError):
        read(first[:cut] + second[cut:])
    with pytest.raises(UnsafePickleError):
        read(first[: first.index(b"\n") + 1] + first[cut:])


def test_exchanged_after_verification_is_refused() -> None:
    class Exchanged(io.BytesIO):
        """Shows the signed bytes first and others after the rewind."""

        def seek(self, position: int, whence: int = 0, /) -> int:
            self.getbuffer()[300_000] ^= 1
            return super().seek(position, whence)

    with pytest.raises(UnsafePickleError):
        PickleSerializer(KEY).read(Exchanged(write([b"x" * 600_000])))


def test_what_cannot_be_pickled() -> None:
    with pytest.raises(SerializationError, match="Pickle cannot hold"):
        write(lambda: None)


def test_the_key() -> None:
    odd: Any
    for odd in (b"short", "a text of more than 16 characters", ["x"] * 20, None, 16):
        with pytest.raises(ConfigurationError, match="16 bytes"):
            PickleSerializer(odd)
    assert "0123" not in repr(PickleSerializer(KEY))


def test_never_chosen_automatically() -> None:
    assert choose_serializer(Trap()).name == "json"
    with pytest.raises(UnsafePickleError, match="no key"):
        find_serializer("pickle")
    chosen = PickleSerializer(KEY)
    assert find_serializer("pickle", chosen) is chosen


def test_another_pickler_by_choice() -> None:
    serializer, file = PickleSerializer(KEY, pickler=cloudpickle), io.BytesIO()
    serializer.write([lambda n: n + 1], file)
    (function,) = serializer.read(io.BytesIO(file.getvalue()))  # type: ignore[misc]
    assert function(1) == 2
    with pytest.raises(SerializationError, match="pickler=cloudpickle"):
        PickleSerializer(KEY).write(lambda: 1, io.BytesIO())
    with pytest.raises(UnsafePickleError):
        PickleSerializer(b"another key 1234", pickler=cloudpickle).read(io.BytesIO(file.getvalue()))
    with pytest.raises(ConfigurationError, match="give a module with a Pickler"):
        PickleSerializer(KEY, pickler="cloudpickle")
