"""What every IO manager that keeps tables for others to read must do, as tests to run on yours."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from flowstone.core.output import OutputAddress, Publication, StoredOutput
from flowstone.core.partitions import Partition, encode_partition
from flowstone.errors import SerializationError, StorageError
from flowstone.protocols import ErasableIO, FindableIO, IOManager, PublishingIO, SweepableIO


class TableConformance(ABC):
    """Tests by type of value, and of what becomes visible when; make a subclass whose name starts with `Test`.

    Override `create` and `visible`; `connection` as well where values become visible with the commit.
    """

    issuer = "conformance"

    @abstractmethod
    def create(self, **options: Any) -> Any:
        """Return a new manager; all those of one test share one database."""

    @abstractmethod
    def visible(self, asset: str, order: str) -> list[tuple[Any, ...]]:
        """Return what others read of an asset: its rows ordered by a column."""

    @contextmanager
    def connection(self) -> Iterator[object | None]:
        """Open the committing transaction, where `publish` works in one."""
        yield None

    # --- by type of value --------------------------------------------------------------------------------------

    def test_arrow_tables_come_back_as_they_were(self) -> None:
        """Every type of column, nulls, extremes, categories, nested values, no rows, rows of nulls."""
        manager = self.create()
        for number, table in enumerate(_arrow_tables()):
            stored = self.commit(manager.store(table, _address(f"arrow{number}")))
            loaded = manager.load(stored)
            assert loaded.schema.equals(table.schema)
            assert loaded.equals(table), table.schema

    def test_frames_come_back_as_they_were(self) -> None:
        """DataFrames of pandas with an index and categories, and of polars."""
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        manager = self.create()
        index = pandas.Index(["a", "b", "c"], name="key")
        frame = pandas.DataFrame(
            {
                "n": [1, 2, 3],
                "price": [1.5, float("nan"), -0.0],
                "kind": pandas.Categorical(["x", None, "x"], categories=["x", "unused"]),
                "at": pandas.to_datetime(["2024-01-01T10:00:00.123456", None, "1999-12-31T00:00:00.000001"]),
                "name": ['caf\u00e9, "quoted"\nline', None, ""],
            },
            index=index,
        )
        pandas.testing.assert_frame_equal(manager.load(self.commit(manager.store(frame, _address("pd")))), frame)
        days = pandas.date_range("2024-03-30", periods=3, freq="12h", tz="Europe/Brussels")
        zoned = pandas.DataFrame({"n": [1, 2, 3]}, index=days)  # pandas#32698: to_sql loses the zone
        pandas.testing.assert_frame_equal(manager.load(self.commit(manager.store(zoned, _address("tz")))), zoned)
        other = polars.DataFrame({"n": [1, None], "who": ["a", "b"], "tags": [["x"], None]})
        assert manager.load(self.commit(manager.store(other, _address("pl")))).equals(other, null_equal=True)

    def test_what_is_no_table_is_refused(self) -> None:
        """With the asset's name, the place and a remedy; nothing is left behind."""
        import pyarrow

        manager = self.create()
        empty = pyarrow.table({"n": pyarrow.nulls(2)})
        duration = pyarrow.table({"d": pyarrow.array([timedelta(1)], pyarrow.duration("us"))})
        nanoseconds = pyarrow.table({"t": pyarrow.array([1], pyarrow.timestamp("ns"))})
        twice = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["n", "N"])
        taken = pyarrow.table({"flowstone_row": [1]})
        long = pyarrow.table({"x" * 64: [1]})
        for value in ([{"n": 1}], 7, None, empty, duration, nanoseconds, twice, taken, long):
            with pytest.raises(SerializationError, match="refused") as raised:
                manager.store(value, _address("refused"))
            assert raised.value.remedy

    def test_a_value_without_rows_needs_no_types_once_the_table_is_there(self) -> None:
        """A day without data (dagster#13287, dagster#23571); the first value of a table has to have columns."""
        import pyarrow

        manager = self.create()
        nothing = pyarrow.table({"n": pyarrow.nulls(0), "other": pyarrow.nulls(0)})
        with pytest.raises(SerializationError, match=r"orders.*types"):
            manager.store(nothing, _address("orders", partition="eu"))
        first = self.store(manager, 1, "eu", step=1)
        self.publish(manager, first, "eu", token=1)
        empty = self.commit(manager.store(nothing, _address("orders", partition="eu", step=2)))
        assert manager.load(empty).equals(nothing)
        assert self.publish(manager, empty, "eu", token=2)
        assert self.visible("orders", "n") == []
        assert manager.load(empty).equals(nothing)
        assert self.publish(manager, first, "eu", token=3)
        assert self.visible("orders", "n") == [(1, "eu")]

    def test_equal_rows_have_the_same_data_version(self) -> None:
        """However they are chunked."""
        import pyarrow

        manager = self.create()
        one = manager.store(pyarrow.table({"n": [1, 2]}), _address("same"))
        other = pyarrow.concat_tables([pyarrow.table({"n": [1]}), pyarrow.table({"n": [2]})])
        assert manager.store(other, _address("same", attempt=2)).content_hash == one.content_hash
        assert manager.store(other.slice(1), _address("same", attempt=3)).content_hash != one.content_hash

    # --- what is visible when -----------------------------------------------------------------------------------

    def test_nothing_is_visible_before_it_is_published(self) -> None:
        """Storing writes beside the table; publishing shows exactly this partition, with the partition's value."""
        manager = self.create()
        first = self.store(manager, 1, date(2024, 1, 1), step=1)
        assert self.visible("orders", "n") == []
        assert self.publish(manager, first, date(2024, 1, 1), token=1)
        second = self.store(manager, 2, date(2024, 1, 2), step=2)
        assert self.visible("orders", "n") == [(1, date(2024, 1, 1))]
        assert self.publish(manager, second, date(2024, 1, 2), token=2)
        assert self.publish(manager, self.store(manager, 10, date(2024, 1, 1), step=3), date(2024, 1, 1), token=3)
        assert self.visible("orders", "n") == [(2, date(2024, 1, 2)), (10, date(2024, 1, 1))]

    def test_an_older_token_is_refused_and_a_repeat_does_no_harm(self) -> None:
        """The row of the book-keeping decides; another store's tokens say nothing."""
        manager = self.create()
        old, new = self.store(manager, 5, "eu", step=5), self.store(manager, 7, "eu", step=7)
        assert self.publish(manager, new, "eu", token=7)
        assert not self.publish(manager, old, "eu", token=5)
        assert self.publish(manager, new, "eu", token=7)
        assert self.visible("orders", "n") == [(7, "eu")]
        self.issuer = "another"
        assert self.publish(manager, old, "eu", token=1)
        assert self.visible("orders", "n") == [(5, "eu")]

    def test_an_earlier_version_is_put_back_and_taken_out(self) -> None:
        """With history, an earlier version loads and is published again; out of use nothing is visible."""
        manager = self.create()
        first, second = self.store(manager, 1, "eu", step=1), self.store(manager, 2, "eu", step=2)
        self.publish(manager, first, "eu", token=1)
        self.publish(manager, second, "eu", token=2)
        assert _numbers(manager.load(first)) == [1]
        assert manager.find([first, second]) == [True, True]
        self.publish(manager, first, "eu", token=3)
        assert self.visible("orders", "n") == [(1, "eu")]
        self.publish(manager, first, "eu", token=4, in_use=False)
        assert self.visible("orders", "n") == []
        assert _numbers(manager.load(first)) == [1]

    def test_without_history_only_what_is_visible_is_kept(self) -> None:
        """What took its place is named; a publication that was lost on the way back is repeated without harm."""
        manager = self.create(history=False)
        first, second = self.store(manager, 1, "eu", step=1), self.store(manager, 2, "eu", step=2)
        self.publish(manager, first, "eu", token=1)
        self.publish(manager, first, "eu", token=1)
        assert _numbers(manager.load(first)) == [1]
        self.publish(manager, second, "eu", token=2)
        assert manager.find([first, second]) == [False, True]
        assert _numbers(manager.load(second)) == [2]
        with pytest.raises(StorageError, match="took its place"):
            manager.load(first)
        with pytest.raises(StorageError, match="took its place"):
            self.publish(manager, first, "eu", token=3)
        assert self.visible("orders", "n") == [(2, "eu")]

    def test_columns_are_added_and_widened_or_refused(self) -> None:
        """Earlier versions come back as they were; what cannot be widened names the column and both types."""
        import pyarrow

        manager = self.create()
        narrow = manager.store(pyarrow.table({"n": pyarrow.array([1], pyarrow.int16())}), _address("wide"))
        self.publish(manager, narrow, None, token=1, asset="wide")
        wide = pyarrow.table({"n": pyarrow.array([2**40], pyarrow.int64()), "new": ["x"]})
        stored = manager.store(wide, _address("wide", attempt=2))
        assert self.visible("wide", "n") == [(1, None)]
        self.publish(manager, stored, None, token=2, asset="wide")
        assert self.visible("wide", "n") == [(2**40, "x")]
        assert manager.load(narrow).schema.field("n").type == pyarrow.int16()
        assert manager.load(stored).equals(wide)
        fewer = manager.store(
            pyarrow.table({"n": pyarrow.array([3], pyarrow.int8())}), _address("wide", attempt=3)
        )
        self.publish(manager, fewer, None, token=3, asset="wide")
        assert self.visible("wide", "n") == [(3, None)]
        with pytest.raises(SerializationError, match="column 'n' was bigint and is text now"):
            manager.store(pyarrow.table({"n": ["x"]}), _address("wide", attempt=4))
        with pytest.raises(SerializationError, match="partitions were none"):
            manager.store(wide, _address("wide", partition="eu", attempt=4))
        refusing = self.create(schema_changes="refuse")
        with pytest.raises(SerializationError, match="'other' \\(text\\)"):
            refusing.store(wide.append_column("other", [["y"]]), _address("wide", attempt=5))
        assert self.visible("wide", "n") == [(3, None)]

    def test_writers_of_two_partitions_do_not_wait_or_mix(self) -> None:
        """Eight at once, on a table that is not there yet; each partition has exactly its rows."""
        manager = self.create()

        def write(number: int) -> bool:
            stored = self.store(manager, number, number, step=number + 1)
            return self.publish(manager, stored, number, token=number + 1)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(write, range(8)))
        assert self.visible("orders", "n") == [(number, number) for number in range(8)]

    def test_an_attempt_that_is_taken_up_again_writes_beside_the_first(self) -> None:
        """A worker that stops releases its attempts: the number is used again, with another token."""
        import pyarrow

        manager = self.create()
        address = _address("orders", partition="eu")
        new = manager.store(pyarrow.table({"n": [8]}), address._replace(token=8))
        self.publish(manager, new, "eu", token=9)
        manager.store(pyarrow.table({"n": [7]}), address._replace(token=7))
        assert _numbers(manager.load(new)) == [8]
        keep = {address._replace(token=8).fenced_version}.intersection
        assert manager.sweep(older_than_seconds=0, keep=keep) == 1
        assert _numbers(manager.load(new)) == [8]
        assert self.visible("orders", "n") == [(8, "eu")]
        assert manager.erase("orders", encode_partition("eu"), [address.version]) == 1

    def test_what_is_discarded_erased_or_swept_is_gone(self) -> None:
        """Also from what others see; an attempt that never committed leaves nothing."""
        manager = self.create()
        assert isinstance(manager, IOManager)
        assert isinstance(manager, PublishingIO)
        assert isinstance(manager, FindableIO)
        assert isinstance(manager, ErasableIO)
        assert isinstance(manager, SweepableIO)
        first, second = self.store(manager, 1, "eu", step=1), self.store(manager, 2, "us", step=2)
        self.publish(manager, first, "eu", token=1)
        self.publish(manager, second, "us", token=2)
        manager.discard(first)
        manager.discard(first)
        with pytest.raises(StorageError):
            manager.load(first)
        assert self.visible("orders", "n") == [(2, "us")]
        self.store(manager, 3, "us", step=3)
        assert manager.erase("orders", encode_partition("us"), ["2-1", "3-1", "9-9"]) == 2
        assert self.visible("orders", "n") == []
        left = self.store(manager, 4, "us", step=4)
        assert manager.sweep(older_than_seconds=0) == 0
        assert manager.sweep(older_than_seconds=0, keep=lambda names: names) == 0
        assert manager.sweep(older_than_seconds=0, keep=lambda _: ()) == 1
        assert manager.find([left]) == [False]

    def test_many_are_discarded_at_once(self) -> None:
        """What is visible among them is hidden, what is not there is no error, and nothing else goes."""
        manager = self.create()
        if not hasattr(manager, "discard_many"):
            pytest.skip("it has no discard_many()")
        versions = [self.store(manager, number, "eu", step=number) for number in (1, 2, 3)]
        kept, other = self.store(manager, 4, "us", step=4), self.store(manager, 5, "eu", step=5, asset="visits")
        self.publish(manager, versions[1], "eu", token=1)
        self.publish(manager, kept, "us", token=2)
        self.publish(manager, other, "eu", token=3, asset="visits")
        manager.discard(versions[0])
        manager.discard_many([*versions, other])
        assert manager.find([*versions, other, kept]) == [False, False, False, False, True]
        assert self.visible("orders", "n") == [(4, "us")]
        assert self.visible("visits", "n") == []
        manager.discard_many([*versions, other])
        manager.discard_many([])

    def test_odd_names_are_names(self) -> None:
        """Of columns, assets and partitions."""
        import pyarrow

        manager = self.create()
        table = pyarrow.table({'odd"%s ?': [1], "select": [2], "\u00fc": [3]})
        for number, partition in enumerate(("'; drop table x; --", "a/b", "\u00fc")):
            asset = f'odd "{number}" %?'
            stored = manager.store(table, _address(asset, partition=partition))
            self.publish(manager, stored, partition, token=1, asset=asset)
            assert manager.load(self.commit(stored)).equals(table)
            assert self.visible(asset, "select") == [(1, 2, 3, partition)]

    # --- pieces --------------------------------------------------------------------------------------------------

    def commit(self, stored: StoredOutput) -> StoredOutput:
        """Return what another process reads from the records."""
        return StoredOutput.from_json(json.loads(json.dumps(stored.to_json())))

    def store(
        self, manager: Any, number: int, partition: Partition, *, step: int, asset: str = "orders"
    ) -> StoredOutput:
        """Store a table of one number for a partition."""
        import pyarrow

        value = pyarrow.table({"n": [number]})
        stored: StoredOutput = manager.store(value, _address(asset, partition=partition, step=step))
        return self.commit(stored)

    def publish(
        self,
        manager: Any,
        stored: StoredOutput,
        partition: Partition,
        *,
        token: int,
        in_use: bool = True,
        asset: str = "orders",
    ) -> bool:
        """Publish a version, in the committing transaction where there is one."""
        publication = Publication(asset, encode_partition(partition), token, self.issuer, stored, in_use)
        with self.connection() as connection:
            is_visible: bool = manager.publish(publication, connection)
            return is_visible


def _address(asset: str, *, partition: Partition = None, step: int = 1, attempt: int = 1) -> OutputAddress:
    return OutputAddress(asset, encode_partition(partition), "run", step, attempt, token=step)


def _numbers(table: Any) -> list[object]:
    found: list[object] = table.column("n").to_pylist()
    return found


def _arrow_tables() -> Iterator[Any]:
    import pyarrow as pa

    yield pa.table(
        {
            "i8": pa.array([-128, None, 127], pa.int8()),
            "i64": pa.array([-(2**63), None, 2**63 - 1], pa.int64()),
            "u32": pa.array([0, None, 2**32 - 1], pa.uint32()),
            "u64": pa.array([0, None, 2**64 - 1], pa.uint64()),
            "f32": pa.array([1.1, None, float("inf")], pa.float32()),
            "f64": pa.array([5e-324, None, 1.7976931348623157e308], pa.float64()),
            "bool": pa.array([True, None, False]),
            "decimal": pa.array([Decimal("1.50"), None, Decimal("-99999999.99")], pa.decimal128(10, 2)),
            "text": pa.array(["", None, 'a,"b"\r\n\\N\\x00 \U0001f600']),
            "large": pa.array(["x" * 100_000, None, " "], pa.large_string()),
            "bytes": pa.array([b"", None, b"\x00\xff\\"]),
            "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
            "day": pa.array([date(1970, 1, 1), None, date(9999, 12, 31)]),
            "time": pa.array([time(0), None, time(23, 59, 59, 999_999)], pa.time64("us")),
            "seconds": pa.array([1, None, 2], pa.timestamp("s")),
            "naive": pa.array([datetime(1, 1, 1), None, datetime(2262, 1, 1, 1, 2, 3, 4)], pa.timestamp("us")),
            "aware": pa.array([datetime(2024, 7, 1, tzinfo=UTC), None, None], pa.timestamp("us", "Europe/Berlin")),
            "kinds": pa.array(["b", None, "a"]).dictionary_encode(),
            "list": pa.array([[1, None], None, []], pa.list_(pa.int32())),
            "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": ""}]),
            "nothing": pa.nulls(3),
        }
    )
    yield pa.table({"n": pa.array([], pa.int64()), "t": pa.array([], pa.string())})
    yield pa.table({"t": pa.array([None, "", None, "x"])})
    yield pa.table({"n": pa.chunked_array([pa.array(range(100_000)), pa.array([None, 7])])})
