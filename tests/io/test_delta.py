"""`DeltaIO`: versions of Delta tables, their fence, and what readers of Delta see."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas
import polars
import pyarrow
import pytest
from deltalake import DeltaTable, write_deltalake
from tests.io.object_servers import Bucket

from flowstone import FlowStone, Settings, StaticPartitions, asset
from flowstone.core.output import OutputAddress, Publication, StoredOutput
from flowstone.core.partitions import Partition, encode_partition
from flowstone.errors import ConfigurationError, SerializationError, StorageError
from flowstone.io import DeltaIO


def address(asset_name: str = "orders", partition: Partition = "eu", *, step: int = 1, token: int = 1) -> Any:
    return OutputAddress(asset_name, encode_partition(partition), "run", step, 1, token)


def rows(root: Path, table: str = "orders") -> list[tuple[Any, ...]]:
    found = DeltaTable(str(root / table)).to_pyarrow_table().to_pylist()
    return sorted(tuple(one.values()) for one in found)


def test_values_come_back_as_they_were(tmp_path: Path) -> None:
    manager = DeltaIO(str(tmp_path))
    frame = pandas.DataFrame({"n": [1, 2], "kind": pandas.Categorical(["a", None])}, index=pandas.Index([5, 6]))
    stored = manager.store(frame, address("pd", None))
    assert stored.location == f"{tmp_path}/pd@1"
    stored = StoredOutput.from_json(stored.to_json())
    pandas.testing.assert_frame_equal(manager.load(stored), frame)
    other = polars.DataFrame({"n": [1], "tags": [["a", "b"]], "s": [{"x": 1}]})
    assert manager.load(manager.store(other, address("pl"))).equals(other)
    table = pyarrow.table(
        {"i": pyarrow.array([1, None], pyarrow.int8()), "d": pyarrow.array([1, 2], pyarrow.date32())}
    )
    assert manager.load(manager.store(table, address("pa"))).equals(table)
    assert manager.load(manager.store(table.slice(0, 0), address("none"))).equals(table.slice(0, 0))


def test_each_step_overwrites_exactly_its_partition_and_loads_its_version(tmp_path: Path) -> None:
    manager = DeltaIO(str(tmp_path))
    first = manager.store(pyarrow.table({"n": [1]}), address(partition="it's"))
    manager.store(pyarrow.table({"n": [2]}), address(step=2, token=2))
    third = manager.store(pyarrow.table({"n": [3, 4]}), address(partition="it's", step=3, token=3))
    assert [one.location.rpartition("@")[2] for one in (first, third)] == ["1", "3"]
    assert rows(tmp_path) == [(2, "eu"), (3, "it's"), (4, "it's")]
    assert manager.load(first).to_pydict() == {"n": [1]}
    manager.store(
        pyarrow.table({"n": pyarrow.array([], pyarrow.int64())}), address(partition="it's", step=4, token=4)
    )
    assert rows(tmp_path) == [(2, "eu")]


def published(stored: StoredOutput, token: int, *, in_use: bool = True) -> Publication:
    return Publication("orders", encode_partition("eu"), token, "", stored, in_use)


def test_what_is_in_use_again_is_written_again(tmp_path: Path) -> None:
    """Also the version that was in use last, and whatever an attempt that never committed has written."""
    manager = DeltaIO(tmp_path)
    first = manager.store(pyarrow.table({"n": [1]}), address(token=1))
    assert manager.publish(published(first, 2), None)
    assert manager.publish(published(first, 3, in_use=False), None)
    assert rows(tmp_path) == []
    assert manager.publish(published(first, 4), None)
    assert rows(tmp_path) == [(1, "eu")]
    manager.store(pyarrow.table({"n": [9]}), address(step=2, token=6))
    assert manager.publish(published(first, 5), None)
    assert rows(tmp_path) == [(1, "eu")]


def test_an_older_publication_is_refused(tmp_path: Path) -> None:
    manager = DeltaIO(tmp_path)
    first = manager.store(pyarrow.table({"n": [1]}), address(token=1))
    second = manager.store(pyarrow.table({"n": [2]}), address(step=2, token=2))
    assert manager.publish(published(first, 4), None)
    assert not manager.publish(published(second, 3), None)
    assert not manager.publish(published(first, 3, in_use=False), None)
    assert rows(tmp_path) == [(1, "eu")]


def test_on_real_servers(bucket: Bucket) -> None:
    """Versions of tables in a bucket, written at once; delta-rs commits with conditional puts."""
    options = {
        "AWS_ENDPOINT_URL": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    manager = DeltaIO(f"s3://{bucket.path}", storage_options=options)

    def write(number: int) -> StoredOutput:
        value = pyarrow.table({"n": [number]})
        return manager.store(value, address(partition=str(number), step=number, token=number))

    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(write, range(1, 5)))
    assert [manager.load(one).to_pydict()["n"] for one in stored] == [[1], [2], [3], [4]]
    assert manager.publish(Publication("orders", encode_partition("1"), 9, "", stored[0], in_use=False), None)
    assert DeltaTable(manager.uri("orders"), storage_options=options).to_pyarrow_table().num_rows == 3
    assert manager.load(stored[0]).to_pydict()["n"] == [1]
    with pytest.raises(StorageError, match="newer attempt") as caught:
        manager.store(pyarrow.table({"n": [0]}), address(partition="1", token=0))
    assert not manager.may_pass(caught.value)
    text = json.dumps([one.to_json() for one in stored])
    assert "AWS_" not in text
    away = DeltaIO(f"s3://{bucket.path}", storage_options=options | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    for verb in (lambda: away.load(stored[0]), lambda: away.store(pyarrow.table({"n": [0]}), address())):
        with pytest.raises(StorageError, match="Check the endpoint") as caught:
            verb()
        assert caught.value.kind == "unavailable"
        assert "\x1b" not in str(caught.value)
        assert away.may_pass(caught.value)
    nowhere = DeltaIO("s3://no-such-bucket/x", storage_options=options)
    with pytest.raises(StorageError) as caught:
        nowhere.store(pyarrow.table({"n": [0]}), address())
    assert caught.value.kind in ("missing", "denied")


ODD = [
    "profile 1",
    "a/b",
    "\u00fc%20",
    "k=v",
    ":",
    "it's",
    "a\\b",
    "",
    "s:",
    "x" * 200,
    "NULL",
    "__HIVE_DEFAULT_PARTITION__",
]


def test_odd_partitions_are_overwritten_and_erased_exactly(tmp_path: Path) -> None:
    """delta-rs#3939: spaces; the empty text is null to Delta, and no predicate finds it again."""
    manager = DeltaIO(tmp_path)
    for step, partition in enumerate(ODD * 2, start=1):
        stored = manager.store(pyarrow.table({"n": [step]}), address(partition=partition, step=step, token=step))
        assert manager.load(stored).to_pydict() == {"n": [step]}, partition
    assert [row[0] for row in rows(tmp_path)] == list(range(len(ODD) + 1, 2 * len(ODD) + 1))
    for left, partition in zip(reversed(range(len(ODD))), ODD, strict=True):
        assert manager.erase("orders", encode_partition(partition), ["1-1"]) == 1, partition
        assert len(rows(tmp_path)) == left


def test_a_value_without_rows_needs_no_types_once_the_table_is_there(tmp_path: Path) -> None:
    """dagster#23571: some days there is nothing."""
    manager, nothing = DeltaIO(tmp_path), pandas.DataFrame(columns=["n"])
    with pytest.raises(SerializationError, match=r"orders.*types"):
        manager.store(nothing, address())
    manager.store(pyarrow.table({"n": [1]}), address())
    pandas.testing.assert_frame_equal(manager.load(manager.store(nothing, address(step=2, token=2))), nothing)
    assert rows(tmp_path) == []


def test_a_stale_attempt_is_refused(tmp_path: Path) -> None:
    """delta-rs alone lets token 5 overwrite what token 7 wrote."""
    manager = DeltaIO(str(tmp_path))
    manager.store(pyarrow.table({"n": [7]}), address(token=7))
    with pytest.raises(StorageError, match="newer attempt"):
        manager.store(pyarrow.table({"n": [5]}), address(token=5))
    manager.store(pyarrow.table({"n": [1]}), address(partition="us", token=5))
    assert rows(tmp_path) == [(1, "us"), (7, "eu")]
    another = manager.fenced_by(lambda: "another store")
    another.store(pyarrow.table({"n": [1]}), address(token=1))
    assert rows(tmp_path) == [(1, "eu"), (1, "us")]


def test_a_stale_attempt_is_refused_that_read_before_the_newer_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = DeltaIO(str(tmp_path))
    manager.store(pyarrow.table({"n": [0]}), address(token=1))
    read = DeltaIO._fitted
    late = [True]

    def overtaken(self: DeltaIO, data: Any, table: Any, uri: str) -> Any:
        if late:
            late.clear()
            manager.store(pyarrow.table({"n": [7]}), address(step=2, token=7))
        return read(self, data, table, uri)

    monkeypatch.setattr(DeltaIO, "_fitted", overtaken)
    with pytest.raises(StorageError, match="newer attempt"):
        manager.store(pyarrow.table({"n": [5]}), address(token=5))
    assert rows(tmp_path) == [(7, "eu")]


def test_writers_of_partitions_at_once(tmp_path: Path) -> None:
    manager = DeltaIO(str(tmp_path))

    def write(number: int) -> StoredOutput:
        return manager.store(
            pyarrow.table({"n": [number]}), address(partition=str(number), step=number, token=number)
        )

    with ThreadPoolExecutor(6) as pool:
        stored = list(pool.map(write, range(1, 7)))
    assert rows(tmp_path) == [(number, str(number)) for number in range(1, 7)]
    assert [manager.load(one).to_pydict()["n"][0] for one in stored] == list(range(1, 7))


def test_columns_are_added_and_never_changed(tmp_path: Path) -> None:
    """What is refused leaves every partition there (dagster#34064: the whole table was overwritten)."""
    manager = DeltaIO(str(tmp_path))
    manager.store(pyarrow.table({"n": [1]}), address())
    narrow = manager.store(
        pyarrow.table({"n": pyarrow.array([2], pyarrow.int8())}), address(partition="us", token=2)
    )
    assert manager.load(narrow).schema.field("n").type == pyarrow.int8()
    manager.store(pyarrow.table({"n": [3], "new": ["x"]}), address(partition="uk", token=3))
    with pytest.raises(SerializationError, match="column 'n' was int64 and is string now"):
        manager.store(pyarrow.table({"n": ["x"]}), address(token=4))
    with pytest.raises(SerializationError, match="is new"):
        DeltaIO(str(tmp_path), schema_changes="refuse").store(pyarrow.table({"z": [1]}), address(token=5))
    with pytest.raises(SerializationError, match="partitioned by"):
        manager.store(pyarrow.table({"n": [1]}), address(partition=None, token=6))
    with pytest.raises(SerializationError, match="times of day"):
        manager.store(pyarrow.table({"t": pyarrow.array([1], pyarrow.time64("us"))}), address(token=7))
    assert len(rows(tmp_path)) == 3


def test_tables_of_others_are_left_alone(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "orders"), pyarrow.table({"n": [7]}))
    with pytest.raises(ConfigurationError, match="not written by asset 'orders'"):
        DeltaIO(str(tmp_path)).store(pyarrow.table({"n": [1]}), address(partition=None))
    assert DeltaIO(str(tmp_path)).erase("orders", encode_partition(None), ["1-1"]) == 0
    assert rows(tmp_path) == [(7,)]
    for root in ("", 7, "s3://key:secret@bucket/x"):
        with pytest.raises(ConfigurationError, match="DeltaIO") as raised:
            DeltaIO(root)  # type: ignore[arg-type]
        assert "secret" not in str(raised.value)
    for options in (
        {"storage_options": {"timeout": 5}},
        {"storage_options": ["AWS_REGION"]},
        {"tables": ["orders"]},
        {"tables": {"a": "t", "b": "t"}},
        {"tables": {"a": ""}},
        {"name": ""},
        {"partition_column": "Bad Name"},
        {"schema_changes": "ignore"},
        {"schema_changes": ["widen"]},
        {"partition_column": float("nan")},
    ):
        with pytest.raises(ConfigurationError, match=f"DeltaIO.{next(iter(options))}"):
            DeltaIO("lake", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("durable", [False, True])
def test_restore_and_invalidate_are_written(tmp_path: Path, database_url: str, durable: bool) -> None:
    made = iter(range(1, 100))

    @asset(io="delta", partitions=StaticPartitions(["eu", "us"]))
    def orders() -> Any:
        return pyarrow.table({"n": [next(made)]})

    settings = Settings(database_url=database_url if durable else None, executor="sync")
    with FlowStone([orders], io={"delta": DeltaIO(str(tmp_path))}, settings=settings) as flow:
        first = flow.materialize("orders", partition="eu")
        flow.materialize("orders", partition="us")
        second = flow.materialize("orders", partition="eu", force=True)
        assert DeltaTable(str(tmp_path / "orders")).version() == 3
        flow.versions.restore("orders", version=first)
        assert rows(tmp_path) == [(1, "eu"), (2, "us")]
        assert flow.load("orders", partition="eu").to_pydict() == {"n": [1]}
        assert flow.load("orders", partition="eu", version=second).to_pydict() == {"n": [3]}
        flow.invalidate("orders", partitions=["us"])
        assert rows(tmp_path) == [(1, "eu")]
        flow.versions.erase("orders", partition="eu")
        assert rows(tmp_path) == []
