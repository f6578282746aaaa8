from __future__ import annotations

import datetime as dt
import io
import tempfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowstone.errors import SerializationError
from flowstone.io import ParquetSerializer, choose_serializer, table_types, tables
from flowstone.io.encoding import HashingWriter
from flowstone.io.tables import schema_to_text


def encode(value: object) -> bytes:
    file = io.BytesIO()
    ParquetSerializer().write(value, HashingWriter(file))
    return file.getvalue()


def round_trip(value: object) -> object:
    return ParquetSerializer().read(io.BytesIO(encode(value)))


@pytest.fixture(params=["in one piece", "row by row"])
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are written with one row in a group, too: they are read and put together group by group."""
    if request.param == "row by row":
        monkeypatch.setattr(tables, "_ROW_GROUP_ROWS", 1)


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


PANDAS |= {
    name: pd.DataFrame({"x": pd.Series(values, dtype=object)})
    for name, values in {
        "other keys": [{"a": 1}, {"b": 2}, {"c": None}, {}],
        "None among whole numbers": [{"n": 2**60 + 1}, {"n": None}],
        "nested": [{"m": {"x": (1, 2)}}, {"m": {"y": {dt.date(2024, 1, 1)}}}],
        "beyond bigint": [2**70, 1, None],
        "whole numbers": [2**60 + 1, None],
        "mixed": [1, "a", 2.5, None, True, b"x", np.nan],
        "missing": ["a", None, np.nan, pd.NA, pd.NaT],
        "lists": [[1, 2], [3, 4]],
        "tuples": [(1, 2), (3,)],
        "surrogate": ["\ud800"],
        "scales": [Decimal("1.5"), Decimal("1.50"), Decimal("NaN"), Decimal("-0")],
        "scalars": [np.int64(1), np.float32(0.5), 1],
        "nothing": [None, None],
        "empty": [],
        "dates": [dt.datetime(2024, 10, 27, 2, 30, fold=1), dt.time(1), dt.timedelta(1)],
        "zero": [-0.0, 0.0, float("inf")],
        "truth": [True, None],
    }.items()
}
PANDAS |= {
    "same names": pd.DataFrame([[1, "x"]], columns=["a", "a"]),
    "mixed names": pd.DataFrame([[1, 2, 3, 4]], columns=["a", 5, None, ("b", 1)]),
    "names that clash": pd.DataFrame([[1, 2, 3]], columns=["1", 1, "1.2"]),
    "no name": pd.DataFrame({"": [1]}),
    "names of days": pd.DataFrame([[1, 2]], columns=pd.date_range("2024", periods=2)),
    "names of categories": pd.DataFrame([[1, 2]], columns=pd.CategoricalIndex(["b", "a"], name="c")),
    "name of names": pd.DataFrame([[1]], columns=pd.Index(["a"], name="n")),
    "range of names": pd.DataFrame(np.ones((2, 3))),
    "named rows only": pd.DataFrame(index=pd.Index(["a", "b"], name="k")),
    "frequency": pd.DataFrame({"a": [1, 2, 3]}, index=pd.bdate_range("2024-01-01", periods=3)),
    "steps": pd.DataFrame({"a": [1, 2]}, index=pd.timedelta_range("1h", periods=2, freq="90min")),
    "objects as index": pd.DataFrame({"a": [1, 2, 3]}, index=pd.Index([1, None, "x"], dtype=object)),
    "texts as index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", None], dtype=object)),
    "index named like a column": pd.DataFrame({"a": [1]}, index=pd.Index([5], name="a")),
    "odd index names": pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "x")], names=[7, (1, "y")])),
    "missing text in a level": pd.DataFrame(
        [[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("b", None)])
    ),
    "same index names": pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "x")], names=["q", "q"])),
    "named range": pd.DataFrame({"a": [1]}, index=pd.RangeIndex(1, name=("r", 1))),
    "intervals": pd.DataFrame({"i": pd.interval_range(0, 2, closed="left")}, index=pd.interval_range(0, 2)),
    "arrow": pd.DataFrame(
        {
            "int": pd.array([1, None], dtype="int8[pyarrow]"),
            "list": pd.array([[1], None], dtype=pd.ArrowDtype(pa.list_(pa.int8()))),
            "struct": pd.array([{"a": 1}, None], dtype=pd.ArrowDtype(pa.struct([("a", pa.int8())]))),
            "dictionary": pd.array(["x", None], dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))),
            "decimal": pd.array([Decimal("1.5"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
            "time": pd.array([dt.datetime(2024, 1, 1), None], dtype=pd.ArrowDtype(pa.timestamp("us", "UTC"))),
        }
    ),
    "unique": pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
}
ATTRIBUTED = pd.DataFrame({"a": [1]})
ATTRIBUTED.attrs = {"unit": ("m", 2), 5: dt.date(2024, 1, 1)}
PANDAS["attributes"] = ATTRIBUTED


def assert_same(loaded: object, frame: pd.DataFrame) -> None:
    """Compare type by type, also what pandas takes for equal."""
    assert isinstance(loaded, pd.DataFrame)
    assert loaded.shape == frame.shape
    assert loaded.flags == frame.flags
    assert getattr(loaded.index, "freq", None) == getattr(frame.index, "freq", None)
    assert loaded.attrs == frame.attrs
    for left, right in ((loaded.index, frame.index), (loaded.columns, frame.columns)):
        assert type(left) is type(right)
        assert [left.get_level_values(level).dtype for level in range(left.nlevels)] == [
            right.get_level_values(level).dtype for level in range(right.nlevels)
        ]
        assert repr(list(left.names)) == repr(list(right.names))
        assert [repr(one) for one in left] == [repr(one) for one in right]
    for position in range(frame.shape[1]):
        left, right = loaded.iloc[:, position], frame.iloc[:, position]
        assert left.dtype == right.dtype
        assert list(map(repr, left)) == list(map(repr, right))
        assert list(map(type, left)) == list(map(type, right))


@pytest.mark.parametrize("name", PANDAS)
@pytest.mark.usefixtures("groups")
def test_pandas_comes_back(name: str) -> None:
    frame = PANDAS[name]
    loaded = round_trip(frame)
    assert_same(loaded, frame)
    pd.testing.assert_frame_equal(loaded, frame, check_freq=True, check_exact=True, check_flags=True)
    assert choose_serializer(frame).name == "parquet"


_PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None), max_size=4),
    st.binary(max_size=4),
    st.decimals(),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(dt.UTC)),
    st.sampled_from([pd.NA, pd.NaT, np.int8(1), np.float64(0.5), np.nan, (1, None), frozenset({1})]),
)
_OBJECTS = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)
_DTYPES = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint8": st.integers(0, 255),
    "float32": st.floats(width=32),
    "Int64": st.none() | st.integers(-(2**63), 2**63 - 1),
    "boolean": st.none() | st.booleans(),
    "string": st.none() | st.text(max_size=3),
    "category": st.none() | st.sampled_from(["a", "b", "ü"]),
    "datetime64[us]": st.none() | st.datetimes(),
    "timedelta64[ns]": st.none() | st.timedeltas(dt.timedelta(-900), dt.timedelta(900)),
    "int64[pyarrow]": st.none() | st.integers(-(2**63), 2**63 - 1),
    "object": _OBJECTS,
}
_LABELS = st.text(max_size=3) | st.integers(0, 3) | st.none() | st.tuples(st.text(max_size=1), st.integers(0, 1))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 4))
    columns = []
    for kind in draw(st.lists(st.sampled_from(sorted(_DTYPES)), max_size=4)):
        values = draw(st.lists(_DTYPES[kind], min_size=rows, max_size=rows))
        array = np.empty(rows, dtype=object)
        for row, value in enumerate(values):
            array[row] = value
        columns.append(pd.Series(array, dtype=object) if kind == "object" else pd.Series(values, dtype=kind))
    frame = pd.DataFrame(dict(enumerate(columns)), index=pd.RangeIndex(rows))
    labels = draw(st.lists(_LABELS, min_size=len(columns), max_size=len(columns)))
    match draw(st.sampled_from(["objects", "text", "numbers"])):
        case "objects":
            frame.columns = pd.Index(labels, dtype=object, tupleize_cols=False)
        case "text":
            frame.columns = [f"c{number}" for number in range(len(columns))]
    match draw(st.sampled_from(["range", "days", "objects", "levels"])):
        case "days":
            frame.index = pd.date_range(
                "2024-10-26", periods=rows, freq="D", tz="Europe/Berlin", name=draw(_LABELS)
            )
        case "objects":
            frame.index = pd.Index(
                draw(st.lists(_PLAIN, min_size=rows, max_size=rows)), dtype=object, tupleize_cols=False
            )
        case "levels" if rows:
            frame.index = pd.MultiIndex.from_arrays(
                [range(rows), list("abcd")[:rows]], names=draw(st.tuples(_LABELS, _LABELS))
            )
    return frame


@settings(max_examples=2 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(frames())
def test_any_frame_comes_back_or_is_refused_by_name(frame: pd.DataFrame) -> None:
    refused = None
    try:
        encoded = encode(frame)
    except SerializationError as error:
        refused = error
    if refused is None:
        assert_same(ParquetSerializer().read(io.BytesIO(encoded)), frame)
    else:
        assert refused.path.startswith(("$[", "$.index", "$.columns"))
        assert refused.remedy


@pytest.mark.usefixtures("groups")
def test_a_frame_put_together_can_be_changed() -> None:
    frame = pd.DataFrame({"n": [1, 2, 3], "f": [0.5, 1.5, 2.5], "s": ["a", None, "c"]})
    loaded = round_trip(frame)
    assert isinstance(loaded, pd.DataFrame)
    loaded.loc[1, "n"], loaded.loc[0, "s"] = 9, "z"
    loaded["f"] *= 2
    assert loaded["n"].tolist() == [1, 9, 3]
    assert loaded["s"].tolist()[0] == "z"
    assert loaded["f"].tolist() == [1.0, 3.0, 5.0]


@pytest.mark.usefixtures("groups")
@pytest.mark.parametrize(
    "value", [PANDAS["plain"], pl.DataFrame({"n": [1, 2], "s": ["a", None]}), pa.table({"n": [1, 2]})]
)
def test_large_files_are_read_without_python(
    value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_types, "_SMALL_BYTES", 0)
    path = tmp_path / "table"
    with path.open("wb") as written:
        ParquetSerializer().write(value, HashingWriter(written))
    with path.open("rb") as file, tempfile.SpooledTemporaryFile(max_size=10) as spool:
        spool.write(path.read_bytes())
        path.unlink()  # what is open is read, whatever lies at its name
        for one in (file, spool):
            loaded = ParquetSerializer().read(one)  # type: ignore[arg-type]  # of typeshed's making
            assert type(loaded) is type(value)
            assert loaded.equals(value)  # type: ignore[attr-defined]


def test_wide_tables_have_fewer_rows_in_a_group() -> None:
    wide = pd.DataFrame(np.zeros((70_000, 200)))
    assert pq.ParquetFile(io.BytesIO(encode(wide))).num_row_groups == 2
    assert pq.ParquetFile(io.BytesIO(encode(wide[[0, 1]]))).num_row_groups == 1


def test_many_categories_keep_their_order() -> None:
    known: list[object] = [f"{n:040}" for n in reversed(range(60_000))]
    frame = pd.DataFrame({"c": categories(known[10:20] * 30_000, known)})
    loaded = round_trip(frame)
    assert isinstance(loaded, pd.DataFrame)
    pd.testing.assert_frame_equal(loaded, frame)


@pytest.mark.parametrize(
    ("frame", "path"),
    [
        (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("b", None)])), "$.columns"),
        (pd.DataFrame({"a": [1 + 2j]}), "$['a']"),
        (pd.DataFrame({"b": [1], "a": pd.arrays.SparseArray([0])}), "$['a']"),
        (pd.DataFrame({"a": ["x", object()]}), "$['a'][1]"),
        (pd.DataFrame({"a": [[1], {"b": [object()]}]}), "$['a'][1][\"b\"][0]"),
        (pd.DataFrame({"a": pd.Series([pd.Timestamp("2024"), None], dtype=object)}), "$['a'][0]"),
        (pd.DataFrame({"a": [np.array([1])]}), "$['a'][0]"),
        (pd.DataFrame({"a": pd.Categorical([1, "x"])}), "$['a']"),
        (pd.DataFrame([[1]], columns=pd.Index([object()], dtype=object)), "$.columns[0]"),
        (pd.DataFrame({"a": [1]}, index=pd.Index([object()], dtype=object)), "$.index[0]"),
        (pd.DataFrame({"a": [1]}, index=pd.arrays.SparseArray([1])), "$.index"),
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
@pytest.mark.usefixtures("groups")
def test_polars_comes_back(frame: pl.DataFrame) -> None:
    loaded = round_trip(frame)
    assert isinstance(loaded, pl.DataFrame)
    assert loaded.schema == frame.schema
    assert loaded.equals(frame)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([1], dtype=pl.Int128),
        pl.Series([object()]),
        pl.Series([{}], dtype=pl.Struct([])),
        pl.Series([[]], dtype=pl.Array(pl.Int8, 0)),
    ],
)
def test_polars_that_would_change_is_refused(column: pl.Series) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(pl.DataFrame({"fine": [1], "odd": column}))
    assert caught.value.path == "$['odd']"


@pytest.mark.parametrize(
    "column",
    [
        pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]),
        pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([1])),
        pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["a", None])),
        pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([[1]])),
        pa.array([pa.MonthDayNano([1, 2, 3])]),
        pa.array([[{}]], pa.list_(pa.struct([]))),
    ],
)
def test_arrow_that_would_change_is_refused(column: pa.Array) -> None:
    with pytest.raises(SerializationError) as caught:
        encode(pa.table({"fine": [1], "odd": column}))
    assert caught.value.path == "$['odd']"


def test_odd_names_come_back() -> None:
    frame = pl.DataFrame({"": [1], "ü\0": [2], "0": [3]})
    loaded = round_trip(frame)
    assert isinstance(loaded, pl.DataFrame)
    assert loaded.equals(frame)
    assert loaded.columns == frame.columns
    table = pa.table([pa.array([1]), pa.array(["x"])], names=["a", "a"])
    assert round_trip(table) == table


def test_rows_without_columns_are_refused_where_only_their_number_is_known() -> None:
    with pytest.raises(SerializationError, match="rows without columns"):
        encode(pa.Table.from_struct_array(pa.array([{}] * 3, pa.struct([]))))


def test_a_table_of_an_earlier_version_is_read() -> None:
    frame = PANDAS["index"]
    file = io.BytesIO()
    pq.write_table(
        pa.Table.from_pandas(frame).replace_schema_metadata(
            (pa.Table.from_pandas(frame).schema.metadata or {}) | {b"flowstone.kind": b"pandas"}
        ),
        file,
    )
    loaded = ParquetSerializer().read(io.BytesIO(file.getvalue()))
    assert isinstance(loaded, pd.DataFrame)
    pd.testing.assert_frame_equal(loaded, frame)


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
@pytest.mark.usefixtures("groups")
def test_arrow_comes_back(table: pa.Table) -> None:
    loaded = round_trip(table)
    assert isinstance(loaded, pa.Table)
    assert loaded.schema.equals(table.schema, check_metadata=True)
    assert loaded.equals(table.unify_dictionaries())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.list_(pa.string()), pa.binary()])
def test_the_schema_beside_the_data_holds_no_data(kind: pa.DataType) -> None:
    values: list[object] = [["x" * 1000] if pa.types.is_list(kind) else "x" * 1000] * 1000
    table = pa.table({"a": pa.array(values, kind)})
    assert len(schema_to_text(table)) < 2000
    assert len(schema_to_text(table.slice(10, 5))) < 2000
    assert round_trip(table) == table


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
