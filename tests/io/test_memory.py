from __future__ import annotations

import csv
import gc
import io
import itertools
import tempfile
import threading
import weakref
from collections.abc import Callable

import pytest

from flowstone.core.output import OutputAddress
from flowstone.errors import SerializationError, StorageError
from flowstone.io import MemoryIO


class Value:
    pass


def address(step: str = "step") -> OutputAddress:
    return OutputAddress("numbers", "", "run", step, attempt=1, token=1)


def test_keeps_the_object_itself() -> None:
    memory = MemoryIO()
    value = {"lock": threading.Lock()}
    assert memory.load(memory.store(value, address())) is value


def test_forgets_what_is_discarded() -> None:
    memory = MemoryIO()
    value = Value()
    alive = weakref.ref(value)
    stored = memory.store(value, address())
    del value
    memory.discard(stored)
    gc.collect()
    assert alive() is None


def test_a_load_in_another_process_says_what_to_do() -> None:
    stored = MemoryIO().store(1, address())
    with pytest.raises(StorageError, match="io='filesystem'") as caught:
        MemoryIO().load(stored)
    assert caught.value.kind == "missing"


def test_none_is_a_value() -> None:
    memory = MemoryIO(name="scratch")
    stored = memory.store(None, address())
    assert stored.io == "scratch"
    assert memory.load(stored) is None


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: (n for n in [1]), "$"),
        (lambda: map(str, [1]), "$"),
        (lambda: zip([1], [2], strict=True), "$"),
        (lambda: iter([1]), "$"),
        (lambda: reversed([1]), "$"),
        (lambda: csv.reader(["a,b"]), "$"),
        (lambda: csv.DictReader(["a,b"]), "$"),
        (lambda: itertools.chain([1]), "$"),
        (lambda: io.StringIO("a"), "$"),
        (lambda: {"rows": [1, filter(None, [1])]}, '$["rows"][1]'),
        (lambda: (1, {2: enumerate("a")}), "$[1][2]"),
    ],
)
def test_what_only_its_first_reader_could_read_is_refused(make: Callable[[], object], path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        MemoryIO().store(make(), address())
    assert caught.value.path == path
    assert "'numbers'" in str(caught.value)


@pytest.mark.parametrize(
    "value", [[1], {1: 2}.items(), {1: 2}.keys(), range(3), "text", {"a": [iter]}, [[1]] * 10_000]
)
def test_what_can_be_read_again_is_kept(value: object) -> None:
    memory = MemoryIO()
    assert memory.load(memory.store(value, address())) is value


def test_a_temporary_file_is_refused_too() -> None:
    with tempfile.NamedTemporaryFile() as file, pytest.raises(SerializationError):
        MemoryIO().store([file], address())
