from __future__ import annotations

import gc
import threading
import weakref

import pytest

from flowstone.core.output import OutputAddress
from flowstone.errors import StorageError
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
