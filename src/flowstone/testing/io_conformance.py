"""What every IO manager must do, as tests to run on yours."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.errors import SerializationError, StorageError
from flowstone.protocols import IOManager

HOSTILE_PARTITIONS = (
    "../../etc/passwd",
    "/abs",
    "a/b",
    "a",
    "A",
    "0.94",
    "a|b",
    "CON",
    "con",
    "nul.txt",
    ".",
    "..",
    " ",
    "trailing.",
    "trailing ",
    "trailing",
    "caf\u00e9",
    "cafe\u0301",
    "line\nbreak",
    "nul\x00byte",
    "'; drop table outputs; --",
    "@unpartitioned",
    "\ud800",
    "x" * 300,
    "x" * 301,
    "X" * 300,
    "\u00fc" * 300,
)
"""Partition keys that a careless manager mixes up, truncates, or follows out of its folder."""


class IOManagerConformance(ABC):
    """Tests of the meaning of an IO manager; make a subclass whose name starts with `Test`.

    Override `create`. Where values become readable only with the commit (as those of PostgresIO that travel
    with it), override `commit` as well.

    Example:
        >>> from flowstone.io import MemoryIO
        >>> class TestMyManager(IOManagerConformance):
        ...     def create(self):
        ...         return MemoryIO()
        >>> TestMyManager().test_loads_what_was_stored()
    """

    @abstractmethod
    def create(self) -> IOManager:
        """Return a new manager; all those of one test that say `shared` share one storage."""

    def commit(self, stored: StoredOutput) -> StoredOutput:
        """Do what the committing transaction does; return what another process reads from the records."""
        return StoredOutput.from_json(json.loads(json.dumps(stored.to_json())), payload=stored.payload)

    def test_loads_what_was_stored(self) -> None:
        """Values of all kinds come back equal, with their types."""
        manager = self.create()
        values: list[object] = [
            None,
            True,
            0,
            1.5,
            "text",
            "",
            b"",
            b"\x00\xff",
            [],
            {"a": [1, {"b": None}]},
            (1, "x"),
            {1, 2},
        ]
        values += [date(2024, 2, 29), "\u00fc" * 1000, {"key": (date(2024, 1, 1), b"x")}]
        for number, value in enumerate(values):
            stored = self.commit(manager.store(value, _address(step=number)))
            loaded = manager.load(stored)
            assert loaded == value
            assert type(loaded) is type(value)

    def test_describes_itself(self) -> None:
        """The description names the manager and survives JSON; encoded values carry size and hash."""
        manager = self.create()
        stored = manager.store([1, 2, 3], _address())
        assert stored.io == manager.name
        assert stored.value_type == "builtins.list"
        assert stored.location
        assert StoredOutput.from_json(json.loads(json.dumps(stored.to_json())), stored.payload) == stored
        if stored.serializer is not None:
            assert stored.size_bytes is not None
            assert stored.content_hash is not None
            assert len(stored.content_hash) == 64
        if stored.payload is not None:
            assert len(stored.payload) == stored.size_bytes

    def test_shared_values_are_visible_to_another_manager(self) -> None:
        """A manager that says `shared` lets another instance load; one that does not says what is missing."""
        first, second = self.create(), self.create()
        stored = self.commit(first.store({"a": 1}, _address()))
        if first.shared:
            assert second.load(stored) == {"a": 1}
        else:
            with pytest.raises(StorageError):
                second.load(stored)

    def test_attempts_do_not_touch_each_other(self) -> None:
        """A later attempt writes beside an earlier one."""
        manager = self.create()
        stored = [self.commit(manager.store([n], _address(attempt=n))) for n in (1, 2, 3)]
        assert [manager.load(each) for each in stored] == [[1], [2], [3]]
        manager.discard(stored[1])
        assert [manager.load(each) for each in (stored[0], stored[2])] == [[1], [3]]

    def test_storing_again_replaces(self) -> None:
        """Storing is retried under the same address; the last value counts, also when it is smaller."""
        manager = self.create()
        manager.store("long " * 100_000, _address())
        stored = self.commit(manager.store("short", _address()))
        assert manager.load(stored) == "short"

    def test_partition_keys_do_not_collide(self) -> None:
        """Keys that differ in any way are different partitions, and different assets are different too."""
        manager = self.create()
        addresses = [
            _address(asset=asset, partition=partition, step=1000 * first + number)
            for first, asset in enumerate(("a", "A", "a/b"))
            for number, partition in enumerate(("", *HOSTILE_PARTITIONS))
        ]
        stored = [self.commit(manager.store([n], address)) for n, address in enumerate(addresses)]
        assert len({each.location for each in stored}) == len(addresses)
        assert [manager.load(each) for each in stored] == [[n] for n in range(len(addresses))]

    def test_refuses_what_it_cannot_keep(self) -> None:
        """A lock is kept as it is or refused by name; a refusal leaves the previous version readable."""
        manager = self.create()
        previous = self.commit(manager.store([1], _address()))
        lock = threading.Lock()
        try:
            stored = manager.store({"rows": [0, lock]}, _address(attempt=2))
        except SerializationError as error:
            assert "numbers" in str(error)  # noqa: PT017 - managers may take any object, so it may not raise
            assert error.remedy  # noqa: PT017
        else:
            assert manager.load(stored) == {"rows": [0, lock]}
        assert manager.load(previous) == [1]

    def test_discarded_is_gone(self) -> None:
        """A discarded version is a StorageError; discarding it again is none."""
        manager = self.create()
        for value in ([1], "large " * 100_000):
            stored = self.commit(manager.store(value, _address()))
            manager.discard(stored)
            manager.discard(stored)
            with pytest.raises(StorageError):
                manager.load(StoredOutput.from_json(stored.to_json()))

    def test_large_values(self) -> None:
        """Eight megabytes come back as they were."""
        manager = self.create()
        value = bytes(range(256)) * 32_768
        assert manager.load(self.commit(manager.store(value, _address()))) == value

    def test_many_threads(self) -> None:
        """One manager serves many threads at once."""
        manager = self.create()

        def round_trip(number: int) -> object:
            value = {"n": number, "fill": "x" * (number * 997 % 90_000)}
            stored = manager.store(value, _address(partition=f"i:{number % 3}", step=number))
            return manager.load(stored) == value

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(round_trip, range(40)))


def _address(*, asset: str = "numbers", partition: str = "", step: int = 1, attempt: int = 1) -> OutputAddress:
    return OutputAddress(
        asset, PartitionKey(partition), run_id="run", step_id=step, attempt=attempt, token=attempt
    )
