from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flowstone.errors import SerializationError
from flowstone.io import ParquetSerializer, choose_serializer
from flowstone.io.streams import HashingWriter


def encode(value: object) -> bytes:
    file = io.BytesIO()
    ParquetSerializer().write(value, HashingWriter(file))
    return file.getvalue()


def round_trip(value: object) -> object:
    return ParquetSerializer().read(io.BytesIO(encode(value)))


def categories(values: list[object], known: list[object], *, ordered: bool = False) -> pd.Categorical:
    return pd.Categorical(values, categories=known, ordered=ordered)


PANDAS = {
    "plain": pd.DataFrame({"i": [1, 2], "f": [0.5, np.nan], "s": ["a", None], "b": [True, False]}),
    "empty": pd.DataFrame(),
    "rows only": pd.DataFrame(index=[1, 2]),
    "no rows": pd.DataFrame({"c": categories(["x"], ["z", "x", "y"]), "i": [1]}).iloc[:0],
    "categories": pd.DataFrame(
        {
            "text": categories(["x", "x"], ["z", "x", "y"]),
            "numbers": categories([3, None], [3, 2, 1], ordered=True),
            "none": categories([None, None], ["a"]),
        }
    ),
    "times": pd.DataFrame(
        {
            "zoned": pd.to_datetime(["2024-10-27", "2024-10-28"]).tz_localize("Europe/Berlin"),
            "seconds": pd.Series(["2024-01-01", None], dtype="datetime64[s]"),
            "nanos": pd.Series([1, 2], dtype="datetime64[ns]"),
            "delta": pd.to_timedelta([1, 2], unit="ns"),
            "date": pd.Series([dt.date(2024, 1, 1), None], dtype=object),
            "period": pd.period_range("2024", periods=2, freq="M"),
        }
    ),
    "nullable": pd.DataFrame(
        {"i": pd.array([1, None], dtype="Int64"), "b": pd.array([True, None], dtype="boolean")}
    ),
    "decimal": pd.DataFrame({"d": pd.Series([Decimal("1.50"), None], dtype=object)}),
    "index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["q", "w"], name="key")),
    "levels": pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "a")], names=["q", None])),
    "range": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(5, 9, 2)),
    "days": pd.DataFrame({"a": [1, 2]}, index=pd.date_range("2024-01-01", periods=2, tz="UTC")),
    "numbered columns": pd.DataFrame({5: [1.0], 6: [2.0]}),
    "column levels": pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
}


@pytest.mark.parametrize("name", PANDAS)
def test_pandas_comes_back(name: str) -> None:
    frame = PANDAS[name]
    loaded = round_trip(frame)
    assert isinstance(loaded, pd.DataFrame)
    pd.testing.assert_frame_equal(loaded, frame, check_freq=False, check_categorical=True)
    assert choose_serializer(frame).name == "parquet"


def test_many_categories_keep_their_order() -> None:
    known: list[object] = [f"{n:040}" for n in reversed(range(60_000))]
    frame = pd.DataFrame({"c": categories(known[10:20] * 30_000, known)})
    loaded = round_trip(frame)
    assert isinstance(loaded, pd.DataFrame)
    pd.testing.assert_frame_equal(loaded, frame)


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        (pd.DataFrame({"a": pd.Series([1, 2], dtype=object)}), "$['a']"),
        (pd.DataFrame({"a": pd.Series(["x", None], dtype=object)}), "$['a']"),
        (pd.DataFrame({"a": [[1], [2]]}), "$['a']"),
        (pd.DataFrame({"a": [{"b": [1]}]}), "$['a']"),
        (pd.DataFrame({"a": pd.Series([1, "x"], dtype=object)}), "$"),
        (pd.DataFrame({"a": [1 + 2j]}), "$"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "$"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "$"),
        (pd.DataFrame({"a": [1], 5: [2]}), "$.columns"),
        (pd.DataFrame({"a": [object()]}), "$"),
    ],
)
def test_pandas_that_would_change_is_refused(frame: pd.DataFrame, path: str) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(frame)
    assert caught.value.path == path
    assert caught.value.remedy


POLARS = pl.DataFrame(
    {
        "categorical": pl.Series(["a", "b"], dtype=pl.Categorical),
        "enum": pl.Series(["a", None], dtype=pl.Enum(["z", "a", "b"])),
        "list": [[1], []],
        "struct": [{"a": 1, "b": None}, {"a": 2, "b": "x"}],
        "date": [dt.date(2024, 1, 1), None],
        "zoned": pl.Series([dt.datetime(2024, 1, 1)] * 2, dtype=pl.Datetime("ns", "Europe/Berlin")),
        "time": [dt.time(1)] * 2,
        "delta": pl.Series([dt.timedelta(1)] * 2, dtype=pl.Duration("ms")),
        "bytes": [b"a", b""],
        "null": [None, None],
        "small": pl.Series([1, 2], dtype=pl.UInt8),
        "decimal": pl.Series([Decimal("1.50"), None], dtype=pl.Decimal(10, 2)),
        "text": ["a", "ü"],
        "array": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
    }
)


@pytest.mark.parametrize("frame", [POLARS, POLARS.clear(), pl.DataFrame(), POLARS.slice(1)])
def test_polars_comes_back(frame: pl.DataFrame) -> None:
    loaded = round_trip(frame)
    assert isinstance(loaded, pl.DataFrame)
    assert loaded.schema == frame.schema
    assert loaded.equals(frame)


@pytest.mark.parametrize(
    "frame", [pl.DataFrame({"i": pl.Series([1], dtype=pl.Int128)}), pl.DataFrame({"o": [object()]})]
)
def test_polars_that_would_change_is_refused(frame: pl.DataFrame) -> None:
    with pytest.raises(SerializationError):
        encode(frame)


ARROW = pa.table(
    {
        "seconds": pa.array([1, None], pa.timestamp("s")),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "large": pa.array(["a", None], pa.large_string()),
        "list": pa.array([[1], None], pa.list_(pa.int8())),
        "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())),
        "fixed": pa.array([b"ab", b"cd"], pa.binary(2)),
        "date64": pa.array([dt.date(2024, 1, 1), None], pa.date64()),
        "nested": pa.array([{"a": [1]}, None]),
    }
).replace_schema_metadata({"owner": "ann"})


@pytest.mark.parametrize(
    "table",
    [
        ARROW,
        ARROW.slice(0, 0),
        pa.concat_tables([ARROW, ARROW.set_column(1, "dictionary", pa.array(["c", "a"]).dictionary_encode())]),
        pa.table({}),
    ],
)
def test_arrow_comes_back(table: pa.Table) -> None:
    loaded = round_trip(table)
    assert isinstance(loaded, pa.Table)
    assert loaded.schema.equals(table.schema, check_metadata=True)
    assert loaded.equals(table.unify_dictionaries())


def test_other_tools_read_it() -> None:
    data = encode(PANDAS["index"])
    assert pq.read_table(io.BytesIO(data)).to_pylist() == [{"a": 1, "key": "q"}, {"a": 2, "key": "w"}]
    assert pq.read_metadata(io.BytesIO(data)).metadata[b"flowstone.kind"] == b"pandas"


def test_equal_tables_give_equal_bytes() -> None:
    assert encode(POLARS) == encode(POLARS.clone())
    assert encode(PANDAS["times"]) == encode(PANDAS["times"].copy())


def test_files_of_other_tools_are_arrow_tables() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), file)
    assert isinstance(ParquetSerializer().read(io.BytesIO(file.getvalue())), pa.Table)


def test_other_values_are_refused() -> None:
    for value in ([1], pl.LazyFrame({"a": [1]}), pd.Series([1])):
        assert not ParquetSerializer().accepts(value)
        with pytest.raises(SerializationError):
            encode(value)
