"""What every IO manager must do, as tests to run on yours."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from tempfile import TemporaryFile
from typing import Any

import pytest

from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.errors import SerializationError, StorageError
from flowstone.protocols import BulkDiscardIO, EncodedIO, ErasableIO, FindableIO, IOManager, SweepableIO
from flowstone.testing.marks import wait_until

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


def _pandas() -> Any:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, None], "t": ["a", None, "c"]}, index=["x", "y", "z"])
    frame["day"] = pandas.to_datetime(["2024-01-01", None, "2024-03-01"]).tz_localize("Europe/Berlin")
    return frame.astype({"t": "category"})


def _polars() -> Any:
    polars = pytest.importorskip("polars")
    return polars.DataFrame({"n": [1, None, 3], "parts": [["a"], [], None], "at": [date(2024, 1, 1), None, None]})


def _arrow() -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table({"n": pyarrow.array([1, None], pyarrow.int8()), "s": [{"a": 1}, None]})


def _numpy() -> Any:
    numpy = pytest.importorskip("numpy")
    return numpy.asfortranarray(numpy.arange(12, dtype=">i2").reshape(3, 4))


TABLES: Mapping[str, tuple[Callable[[], Any], Callable[[Any, Any], bool]]] = {
    "pandas": (_pandas, lambda one, other: bool(one.equals(other) and list(one.dtypes) == list(other.dtypes))),
    "polars": (_polars, lambda one, other: bool(one.equals(other) and one.schema == other.schema)),
    "pyarrow": (_arrow, lambda one, other: bool(one.equals(other))),
    "numpy": (_numpy, lambda one, other: bool(one.dtype == other.dtype and (one == other).all())),
}
"""Tables and arrays by library: how one is made, and when two are the same."""

_WRITER = """
import json
from flowstone.core.output import OutputAddress
value = bytes(range(256)) * 16_384
for step in range(1, 1000):
    stored = manager.store(value, OutputAddress("numbers", "", "run", step, 1, step))
    print(json.dumps(stored.to_json()), flush=True)
"""
"""What the writer does that is killed."""


class IOManagerConformance(ABC):
    """Tests of the meaning of an IO manager; make a subclass whose name starts with `Test`.

    Override `create`. Where values become readable only with the commit (as those of PostgresIO that travel
    with it), override `commit` as well. Faults are tried where the suite can make them: override `damage`,
    `writer` and `names`; tests of what a manager has no method for are skipped.

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

    def damage(self, stored: StoredOutput) -> bool:
        """Cut the stored bytes in half behind the manager's back; False when this suite cannot."""
        return False

    def writer(self) -> str | None:
        """Return Python code for another process that makes `manager` on the same storage; None when it cannot."""
        return None

    def names(self) -> Collection[str]:
        """Return what lies in the storage, down to temporary files."""
        raise NotImplementedError

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

    def test_many_are_discarded_at_once(self) -> None:
        """`discard_many` deletes all that it is given, one that is gone among them, and nothing else."""
        manager = self.create()
        if not isinstance(manager, BulkDiscardIO):
            pytest.skip("it has no discard_many()")
        stored = [self.commit(manager.store("x" * size, _address(step=size))) for size in (1, 2, 100_000, 3, 4)]
        manager.discard(stored[1])
        manager.discard_many(stored[:4])
        for gone in stored[:4]:
            with pytest.raises(StorageError):
                manager.load(StoredOutput.from_json(gone.to_json()))
        assert manager.load(stored[4]) == "xxxx"
        manager.discard_many([])

    def test_large_values(self) -> None:
        """Eight megabytes come back as they were."""
        manager = self.create()
        value = bytes(range(256)) * 32_768
        assert manager.load(self.commit(manager.store(value, _address()))) == value

    def test_takes_and_gives_bytes_of_another_process(self) -> None:
        """What the codec writes elsewhere is stored as the value would be, and its bytes alone are read."""
        manager = self.create()
        if not isinstance(manager, EncodedIO):
            pytest.skip("it has no store_encoded()")
        codec = pickle.loads(pickle.dumps(manager.codec))  # noqa: S301 - pickled here
        for number, value in enumerate(([1], "large " * 100_000)):
            address = _address(step=number)
            with TemporaryFile() as file:
                encoded = codec.encode(value, file, address)
                stored = self.commit(manager.store_encoded(file, encoded, address))
            assert manager.load(stored) == value
            as_value = self.commit(manager.store(value, _address(step=number + 10)))
            assert (stored.size_bytes, stored.content_hash, stored.serializer, stored.value_type) == (
                as_value.size_bytes,
                as_value.content_hash,
                as_value.serializer,
                as_value.value_type,
            )
            with manager.open_encoded(stored) as file:
                assert codec.can_decode(stored)
                assert codec.decode(file, stored) == value
            with TemporaryFile() as short, pytest.raises(StorageError):
                manager.store_encoded(short, encoded, _address(step=number, token=99))

    @pytest.mark.parametrize("library", TABLES)
    def test_tables_and_arrays_come_back(self, library: str) -> None:
        """A table or an array comes back with its types, its order and what is missing in it."""
        make, same = TABLES[library]
        manager, value = self.create(), make()
        loaded = manager.load(self.commit(manager.store(value, _address())))
        assert type(loaded) is type(value)
        assert same(loaded, value)

    def test_an_attempt_that_lost_its_lease_changes_nothing(self) -> None:
        """What a later attempt published stays, whatever an earlier one, whose token is older, still does."""
        manager = self.create()
        published = self.commit(manager.store("new " * 50_000, _address(attempt=2)))
        late = manager.store("old " * 90_000, _address(attempt=1))
        assert manager.load(published) == "new " * 50_000
        manager.discard(late)
        assert manager.load(published) == "new " * 50_000

    def test_an_attempt_that_is_taken_up_again_writes_beside_the_first(self) -> None:
        """A worker that stops releases its attempts: the number is used again, with another token."""
        manager = self.create()
        for number, size in enumerate((10, 90_000)):
            first, again = (_address(step=number, token=token) for token in (7, 8))
            published = self.commit(manager.store("new " * size, again))
            manager.store("old " * size, first)  # as large as the one that is committed
            assert manager.load(published) == "new " * size
            if isinstance(manager, SweepableIO):
                manager.sweep(older_than_seconds=-60, keep={again.fenced_version}.intersection)
                assert manager.load(published) == "new " * size

    def test_a_damaged_value_is_no_value(self) -> None:
        """Half of the bytes are an error that says so, for every format; never a part of the value."""
        manager = self.create()
        values: list[object] = ["text " * 50_000, b"bytes" * 50_000, list(range(60_000))]
        for number, value in enumerate(values):
            stored = self.commit(manager.store(value, _address(step=number)))
            if not self.damage(stored):
                pytest.skip("damage() is not overridden")
            with pytest.raises(StorageError) as caught:
                manager.load(stored)
            assert caught.value.kind in ("corrupt", "missing")

    def test_says_what_is_there(self) -> None:
        """`find` answers for each value, in order; one that was never stored is not there."""
        manager = self.create()
        if not isinstance(manager, FindableIO):
            pytest.skip("it has no find()")
        stored = [self.commit(manager.store("x" * 100_000, _address(step=n))) for n in (1, 2, 3)]
        manager.discard(stored[1])
        assert list(manager.find(stored)) == [True, False, True]
        assert list(manager.find([])) == []

    def test_erases_versions_of_one_partition(self) -> None:
        """`erase` deletes the named versions of one partition, however hostile, and nothing else."""
        manager = self.create()
        if not isinstance(manager, ErasableIO):
            pytest.skip("it has no erase()")
        for number, partition in enumerate(("a/b", "../a", "x" * 301, "\u00fc" * 300)):
            steps = [10 * number + n for n in range(3)]
            gone, kept, other = (
                self.commit(manager.store(step, _address(partition=key, step=step)))
                for step, key in zip(steps, (partition, partition, f"{partition}2"), strict=True)
            )
            version = _address(step=steps[0]).version
            assert manager.erase("numbers", PartitionKey(partition), [version, "999-9"]) == 1
            assert [manager.load(one) for one in (kept, other)] == steps[1:]
            with pytest.raises(StorageError):
                manager.load(StoredOutput.from_json(gone.to_json()))

    def test_sweep_deletes_only_what_nobody_keeps(self) -> None:
        """`sweep` offers versions to `keep`, and deletes the others; without `keep` no version goes."""
        manager = self.create()
        if not isinstance(manager, SweepableIO):
            pytest.skip("it has no sweep()")
        addresses = [_address(partition=key, step=n) for n, key in enumerate(("", "a/b", "A", "x" * 301))]
        stored = [self.commit(manager.store("x" * 100_000, address)) for address in addresses]
        manager.sweep(older_than_seconds=0)
        assert [len(str(manager.load(one))) for one in stored] == [100_000] * 4
        offered: set[str] = set()

        def keep(versions: Collection[str]) -> set[str]:
            offered.update(versions)
            return {address.fenced_version for address in addresses[::2]}

        # storages that say when something was written say it in whole seconds
        assert wait_until(lambda: manager.sweep(older_than_seconds=0, keep=keep) >= 0 and len(offered) >= 4)
        assert offered == {address.fenced_version for address in addresses}
        for one in stored[::2]:
            assert manager.load(one) == "x" * 100_000
        for one in stored[1::2]:
            with pytest.raises(StorageError):
                manager.load(StoredOutput.from_json(one.to_json()))

    def test_sweep_clears_up_after_a_killed_writer(self) -> None:
        """A writer killed with SIGKILL leaves whole values and leftovers; `sweep` finds all of these."""
        manager, code = self.create(), self.writer()
        if code is None or not isinstance(manager, SweepableIO):
            pytest.skip("writer() is not overridden, or it has no sweep()")
        with subprocess.Popen(  # noqa: S603 - code of this suite
            [sys.executable, "-c", code + _WRITER], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                written = [process.stdout.readline() for _ in range(3)]
            finally:
                process.kill()
            written += process.stdout.readlines()
        stored = [StoredOutput.from_json(json.loads(line)) for line in written if line.endswith("\n")]
        needed, kept = stored[:2], [_address(step=step, token=step).fenced_version for step in (1, 2)]
        for one in stored:
            assert manager.load(self.commit(one)) == bytes(range(256)) * 16_384

        def is_clear() -> bool:
            with suppress(StorageError):  # the storage may not have noticed yet that the writer is gone
                manager.sweep(older_than_seconds=0, keep=lambda versions: set(kept) & set(versions))
                manager.sweep(older_than_seconds=0)
            return len(self.names()) == len(kept)

        assert wait_until(is_clear), sorted(self.names())
        assert [len(manager.load(one)) for one in needed] == [4 << 20, 4 << 20]  # type: ignore[arg-type]

    def test_many_threads(self) -> None:
        """One manager serves many threads at once."""
        manager = self.create()

        def round_trip(number: int) -> object:
            value = {"n": number, "fill": "x" * (number * 997 % 90_000)}
            stored = manager.store(value, _address(partition=f"i:{number % 3}", step=number))
            return manager.load(stored) == value

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(round_trip, range(40)))


def _address(
    *, asset: str = "numbers", partition: str = "", step: int = 1, attempt: int = 1, token: int | None = None
) -> OutputAddress:
    token = attempt if token is None else token
    return OutputAddress(asset, PartitionKey(partition), run_id="run", step_id=step, attempt=attempt, token=token)
