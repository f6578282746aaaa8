"""Converts DataFrames to Arrow tables and back, refusing those that would come back as something else."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from flowstone.errors import MissingExtraError, SerializationError
from flowstone.io.json import JsonSerializer

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_PANDAS_KEY = "flowstone.pandas"


def frame_to_arrow(kind: str, value: Any) -> tuple[pyarrow.Table, dict[str, str]]:
    """Return the Arrow table of a DataFrame, and what to keep beside it.

    Args:
        kind: `"pandas"`, `"polars"` or `"pyarrow"`.
        value: a DataFrame or Table of that library.

    Raises:
        SerializationError: a column would come back with another type.
    """
    if kind == "pandas":
        return _pandas_to_arrow(value)
    if kind == "polars":
        return _polars_to_arrow(value), {}
    table: pyarrow.Table = value
    return table, {}


def frame_in_pieces(kind: str, value: Any, rows_of: Callable[[int, int], int]) -> Iterator[Any] | None:
    """Return a large frame in pieces that become Arrow one after the other; None when it becomes one as a whole.

    Only frames of polars are taken apart: their texts have another form in Arrow, so that all of them would be in
    memory twice. Categories belong to the whole frame.

    Args:
        kind: see `frame_to_arrow`.
        value: see there.
        rows_of: takes the bytes and rows of a table and returns how many rows a piece has.
    """
    if kind != "polars":
        return None
    rows = rows_of(value.estimated_size(), value.height)
    if value.height <= rows or any(_has_categories(one) for one in value.dtypes):
        return None
    pieces: Iterator[Any] = iter(value.iter_slices(rows))
    return pieces


def _has_categories(kind: Any) -> bool:
    """Whether a type of polars, or one inside of it, becomes a dictionary in Arrow."""
    return any(name in str(kind) for name in ("Categorical", "Enum"))


def arrow_to_frame(kind: str, pieces: Iterable[pyarrow.Table], rows: int, beside: Mapping[str, str]) -> object:
    """Return the DataFrame of an Arrow table, the reverse of `frame_to_arrow`.

    Args:
        kind: see `frame_to_arrow`.
        pieces: the table, its rows in one piece or several; each is let go before the next one is taken.
        rows: how many there are in all.
        beside: what was kept beside it.

    Raises:
        MissingExtraError: the library is not installed here.

    Example:
        >>> import pyarrow
        >>> arrow_to_frame("polars", [pyarrow.table({"n": [1]}), pyarrow.table({"n": [2]})], 2, {}).shape
        (2, 1)
    """
    import pyarrow

    try:
        if kind == "pandas" and _PANDAS_KEY in beside:
            return _arrow_to_pandas(pieces, rows, json.loads(beside[_PANDAS_KEY]))
        if kind == "polars":
            return _arrow_to_polars(pieces)
        tables = list(pieces)
        table = tables[0] if len(tables) == 1 else pyarrow.concat_tables(tables)
        return table.to_pandas() if kind == "pandas" else table  # pandas of an earlier version
    except ModuleNotFoundError as error:
        raise MissingExtraError(kind, None, f"Loading a table of {kind}") from error


def _pandas_to_arrow(frame: pandas.DataFrame) -> tuple[pyarrow.Table, dict[str, str]]:
    """Return columns and index levels as one table, and what is needed to make the same frame of them."""
    import pandas
    import pyarrow

    labels = list(frame.columns)
    columns = frame.copy(deep=False)
    columns.columns = pandas.Index([str(position) for position in range(len(labels))])
    columns.index = pandas.RangeIndex(len(frame))
    columns.attrs = {}  # kept apart: pyarrow drops what plain JSON does not know
    arrays, decoding = _encode(columns, [f"$[{label!r}]" for label in labels])
    index, index_arrays = _encode_index(frame.index, "$.index")
    names, names_arrays = _encode_labels(frame.columns)
    about = {
        "data": decoding,
        "index": index,
        "columns": names | ({"arrays": _to_text(names_arrays)} if names_arrays else {}),
        "attrs": _json(frame.attrs, "$.attrs"),
        "duplicates": bool(frame.flags.allows_duplicate_labels),
    }
    fields = _field_names(labels, list(frame.index.names), len(index_arrays))
    table = pyarrow.Table.from_arrays([*arrays, *index_arrays], names=fields)
    return table, {_PANDAS_KEY: json.dumps(about)}


def _arrow_to_pandas(pieces: Iterable[pyarrow.Table], rows: int, about: dict[str, Any]) -> pandas.DataFrame:
    count = len(about["data"]["codecs"])
    columns, index_chunks, labels = _Columns(rows), [], []
    for table in pieces:
        labels = table.column_names[:count]
        index_chunks.append(table.columns[count:])
        part = _decode(table.columns[:count], about["data"], table.num_rows)
        del table  # what is not kept makes room for the next piece
        columns.add(part)
        del part
    index = _decode_index(about["index"], [_one_column(chunks) for chunks in zip(*index_chunks, strict=True)])
    frame = columns.frame(index)
    names = about["columns"]
    if "text" in names:
        import pandas

        frame.columns = pandas.Index(labels, dtype=names["text"])
    else:
        frame.columns = _decode_index(names, _from_text(names["arrays"]) if "arrays" in names else [])
    frame.attrs = _from_json(about["attrs"])
    return frame if about["duplicates"] else frame.set_flags(allows_duplicate_labels=False)


def _one_column(chunks: Sequence[pyarrow.ChunkedArray]) -> pyarrow.ChunkedArray:
    import pyarrow

    return pyarrow.chunked_array([chunk for one in chunks for chunk in one.chunks], type=chunks[0].type)


class _Columns:
    """Puts frames of the same columns below each other, with no more memory than the result and one of them.

    NumPy columns are copied into place as they come; of others the pieces are kept, which Arrow's arrays share.

    Args:
        rows: how many there will be.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._filled = 0
        self._first: pandas.DataFrame | None = None
        self._columns: list[Any] = []

    def add(self, frame: pandas.DataFrame) -> None:
        """Add a frame, whose columns are numbered."""
        if len(frame) == self._rows:
            self._first = frame  # as it is, with the columns of a type in one block
            return
        import numpy

        parts = [column for _, column in frame.items()]
        if not self._columns:
            self._columns = [
                numpy.empty(self._rows, one.dtype) if isinstance(one.dtype, numpy.dtype) else [] for one in parts
            ]
        end = self._filled + len(frame)
        for place, part in zip(self._columns, parts, strict=True):
            if isinstance(place, list):
                place.append(part)
            elif place.dtype != part.dtype:
                raise TypeError(f"a column is {place.dtype} in one part of the file and {part.dtype} in another")
            else:
                place[self._filled : end] = part.to_numpy()
        self._filled = end

    def frame(self, index: pandas.Index[Any]) -> pandas.DataFrame:
        """Return all rows under an index."""
        import pandas

        if self._first is not None:
            frame, self._first = self._first, None
            frame.index = index
            return frame
        found: dict[int, pandas.Series[Any]] = {}
        for position, place in enumerate(self._columns):
            self._columns[position] = None
            if isinstance(place, list):
                found[position] = pandas.concat(place, ignore_index=True).set_axis(index)
            else:
                found[position] = pandas.Series(place, index=index, dtype=place.dtype, copy=False)
        return pandas.DataFrame(found, index=index, copy=False)


def _encode(frame: pandas.DataFrame, paths: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return an Arrow array for each column of a frame whose columns are numbered, and how to read them back.

    Columns of Python objects are looked at value by value, all others by their dtype alone.
    """
    import numpy
    import pandas

    arrays: list[Any] = []
    codecs: list[str] = []
    arrow_type = getattr(pandas, "ArrowDtype", None)
    for (_, column), path in zip(frame.items(), paths, strict=True):
        kind = column.dtype
        if isinstance(kind, numpy.dtype) and kind.kind == "O":
            array, codec = _encode_objects(column.tolist(), path)
        elif arrow_type is not None and isinstance(kind, arrow_type):
            array, codec = _chunked(column), "arrow"
        else:
            array, codec = None, "plain"
        arrays.append(array)
        codecs.append(codec)
    plain = [position for position, codec in enumerate(codecs) if codec == "plain"]
    decoding: dict[str, Any] = {"codecs": codecs}
    if plain:
        part = frame if len(plain) == len(codecs) else frame.iloc[:, plain]
        table = _plain_to_arrow(part, [paths[position] for position in plain])
        decoding["pandas"] = (table.schema.metadata or {})[b"pandas"].decode()
        for position, array in zip(plain, table.columns, strict=True):
            arrays[position] = array
    return arrays, decoding


def _plain_to_arrow(frame: pandas.DataFrame, paths: list[str]) -> pyarrow.Table:
    import pyarrow

    try:
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        restored: pandas.DataFrame = table.slice(0, 0).to_pandas()
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        if len(paths) == 1:
            kind = frame.dtypes.iloc[0]
            raise _refusal(f"A column of dtype {kind}", kind, paths[0], "Change it with .astype(...).") from error
        for position, path in enumerate(paths):
            _plain_to_arrow(frame.iloc[:, [position]], [path])
        raise
    for kind, found, path in zip(frame.dtypes, restored.dtypes, paths, strict=True):
        if found != kind:
            raise _refusal(f"A column of dtype {kind}", kind, path, "Change it with .astype(...).")
    return table


def _decode(columns: list[Any], decoding: dict[str, Any], rows: int) -> pandas.DataFrame:
    """Return the frame with numbered columns that `_encode` was given."""
    import pandas
    import pyarrow

    codecs = decoding["codecs"]
    plain = [position for position, codec in enumerate(codecs) if codec == "plain"]
    decoded: dict[int, Any] = {}
    if plain:
        names = [str(position) for position in plain]
        table = pyarrow.Table.from_arrays([columns[position] for position in plain], names=names)
        frame: pandas.DataFrame = table.replace_schema_metadata({"pandas": decoding["pandas"]}).to_pandas()
        if len(plain) == len(codecs):
            return frame
        decoded = dict(zip(plain, (column for _, column in frame.items()), strict=True))
    for position, codec in enumerate(codecs):
        if codec == "arrow":
            decoded[position] = pandas.Series(pandas.arrays.ArrowExtensionArray(columns[position]))
        elif codec != "plain":
            decoded[position] = _object_series(_decode_objects(columns[position], codec))
    ordered = {position: decoded[position] for position in range(len(codecs))}
    return pandas.DataFrame(ordered, index=pandas.RangeIndex(rows))


def _chunked(column: Any) -> pyarrow.ChunkedArray:
    import pyarrow

    array = pyarrow.array(column)
    return array if isinstance(array, pyarrow.ChunkedArray) else pyarrow.chunked_array([array])


def _encode_objects(values: list[object], path: str) -> tuple[Any, str]:
    """Return Python objects as an Arrow array: of their type when Arrow keeps it exactly, else as JSON."""
    import pyarrow

    kinds = set(map(type, values)) - {type(None)}
    if len(kinds) <= 1:
        try:
            array = _encode_one_type(values, next(iter(kinds), None))
        except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError):
            array = None
        if array is not None:
            return array, "object"
    return pyarrow.array(
        [_encode_cell(value, row, path) for row, value in enumerate(values)], pyarrow.string()
    ), "json"


def _encode_one_type(values: list[object], kind: type | None) -> Any:
    import pyarrow

    types: dict[type | None, pyarrow.DataType] = {
        None: pyarrow.null(),
        str: pyarrow.string(),
        bytes: pyarrow.binary(),
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        date: pyarrow.date32(),
    }
    if kind is Decimal:
        # Arrow has one scale for all, and no NaN
        exponents = {value.as_tuple().exponent for value in values if isinstance(value, Decimal)}
        exponent = next(iter(exponents))
        if len(exponents) == 1 and isinstance(exponent, int) and exponent <= 0 and not _has_negative_zero(values):
            return pyarrow.array(values, from_pandas=False)
        return None
    found = types.get(kind)
    return None if found is None else pyarrow.array(values, type=found, from_pandas=False)


def _has_negative_zero(values: list[object]) -> bool:
    return any(isinstance(value, Decimal) and value.is_zero() and value.is_signed() for value in values)


def _encode_cell(value: object, row: int, path: str) -> str | None:
    if value is None:
        return None
    word = _WORDS.get(type(value).__name__) if type(value).__module__.startswith("pandas.") else None
    if word is not None:
        return word
    return _json(value, f"{path}[{row}]")


# the two missing values of pandas among objects; no JSON begins like them
_WORDS = {"NAType": "NA", "NaTType": "NaT"}


def _decode_objects(column: Any, codec: str) -> list[object]:
    values: list[Any] = column.to_pylist()
    if codec == "object":
        return values
    import pandas

    words = {"NA": pandas.NA, "NaT": pandas.NaT}
    return [None if text is None else words[text] if text in words else _from_json(text) for text in values]


def _object_series(values: list[object]) -> pandas.Series[Any]:
    import numpy
    import pandas

    array = numpy.empty(len(values), dtype=object)
    for position, value in enumerate(values):  # numpy would make a matrix of lists of equal length
        array[position] = value
    return pandas.Series(array, dtype=object)


def _encode_index(index: pandas.Index[Any], path: str) -> tuple[dict[str, Any], list[Any]]:
    """Return what makes the same index again, and the arrays of its levels."""
    import pandas

    about: dict[str, Any] = {"names": _json(list(index.names), f"{path}.names")}
    if isinstance(index, pandas.RangeIndex):
        return about | {"range": [index.start, index.stop, index.step]}, []
    frequency = (
        getattr(index, "freq", None) if isinstance(index, pandas.DatetimeIndex | pandas.TimedeltaIndex) else None
    )
    if frequency is not None:
        about["freq"] = _frequency(index, frequency, path)
    # a Series of a level keeps its dtype, whatever kind of index it is
    levels = _levels(index)
    frame = pandas.DataFrame(
        {str(level): pandas.Series(values.array, dtype=values.dtype) for level, values in enumerate(levels)}
    )
    paths = [f"{path}[{level}]" for level in range(len(levels))] if len(levels) > 1 else [path]
    arrays, decoding = _encode(frame, paths)
    about |= {"data": decoding, "rows": len(index), "multi": isinstance(index, pandas.MultiIndex)}
    if about["multi"] or "plain" not in decoding["codecs"]:
        restored = _decode_index(about, arrays)
        same = _index_types(restored) == _index_types(index) and type(restored) is type(index)
        if not same or _level_dtypes(restored) != _level_dtypes(index):
            raise _refusal("This index", index.dtype, path, "Call .reset_index() first.")
    return about, arrays


def _level_dtypes(index: Any) -> list[object]:
    """Return the dtypes of the levels of an index; among whole numbers a missing label would make them decimal."""
    return [level.dtype for level in getattr(index, "levels", ())]


def _frequency(index: Any, frequency: Any, path: str) -> str:
    from pandas.tseries.frequencies import to_offset

    text = str(frequency.freqstr)
    try:
        known: object = to_offset(text)
    except ValueError:
        known = None
    if known != frequency:
        remedy = "Set index.freq = None first; the times stay as they are."
        raise _refusal(f"An index with the frequency {frequency!r}", type(index).__name__, path, remedy)
    return text


def _decode_index(about: dict[str, Any], arrays: list[Any]) -> pandas.Index[Any]:
    import pandas

    names = _from_json(about["names"])
    if "range" in about:
        start, stop, step = about["range"]
        return pandas.RangeIndex(start, stop, step, name=names[0])
    levels = [column for _, column in _decode(arrays, about["data"], about["rows"]).items()]
    if about["multi"]:
        return pandas.MultiIndex.from_arrays(
            [pandas.Index(level, dtype=level.dtype) for level in levels], names=names
        )
    index: Any = pandas.Index(levels[0].array, dtype=levels[0].dtype)
    if "freq" in about:
        index.freq = about["freq"]
    return index.set_names(names)  # type: ignore[no-any-return]


def _encode_labels(columns: pandas.Index[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Return how to make the column labels again; plain text needs no more than the names in the file."""
    kind = str(columns.dtype)
    plain = type(columns).__name__ == "Index" and columns.name is None and kind in ("object", "str")
    if plain and columns.is_unique and all(type(label) is str for label in columns):
        try:
            "".join(columns).encode()
        except UnicodeEncodeError:
            pass
        else:
            return {"text": kind}, []
    return _encode_index(columns, "$.columns")


def _field_names(labels: Sequence[object], index_names: Sequence[object], levels: int) -> list[str]:
    """Return names for the file: what other tools show."""
    used: set[str] = set()
    names = []
    labels_needed = [str(label) for label in labels]
    for level in range(levels):
        name = index_names[level]
        labels_needed.append(
            name if type(name) is str and name not in labels_needed else f"__index_level_{level}__"
        )
    for name in labels_needed:
        text = name.encode("utf-8", "backslashreplace").decode()
        number = 1
        while text in used:
            number += 1
            text = f"{name}.{number}"
        used.add(text)
        names.append(text)
    return names


def _json(value: object, path: str) -> str:
    try:
        return _JSON.dumps(value).decode()
    except SerializationError as error:
        raise SerializationError(
            "A table is kept as Parquet, and a Python object in it cannot be kept exactly",
            path=f"{path}{error.path[1:]}",
            type_name=error.type_name,
            remedy=_remedy(error),
        ) from None


def _remedy(error: SerializationError) -> str:
    if error.type_name.startswith("pandas."):
        return "Give the column a dtype of pandas: pandas.to_datetime(column), column.astype('Int64'), ..."
    if error.type_name == "numpy.ndarray":
        return "Use lists (value.tolist()), or return a polars or pyarrow table: they have list types."
    return error.remedy


def _from_json(text: str) -> Any:
    return _JSON.read(io.BytesIO(text.encode()))


_JSON = JsonSerializer()


def _to_text(arrays: list[Any]) -> str:
    import pyarrow

    table = pyarrow.Table.from_arrays(arrays, names=[str(number) for number in range(len(arrays))])
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue()).decode("ascii")


def _from_text(text: str) -> list[Any]:
    import pyarrow

    with pyarrow.ipc.open_stream(base64.b64decode(text)) as reader:
        columns: list[Any] = reader.read_all().columns
    return columns


def _index_types(index: pandas.Index[Any]) -> list[object]:
    return [level.dtype for level in _levels(index)]


def _levels(index: pandas.Index[Any]) -> list[pandas.Index[Any]]:
    """Return the values of each level; by number, which a level named by a number would be taken for."""
    unnamed = index.set_names([None] * index.nlevels)
    return [unnamed.get_level_values(level) for level in range(index.nlevels)]


def _polars_to_arrow(frame: polars.DataFrame) -> pyarrow.Table:
    import polars

    # numbered meanwhile: polars gives other names to columns without one, and ends in a panic over NUL in a name
    numbered = frame.clone()
    numbered.columns = [str(position) for position in range(frame.width)]
    # The oldest level is what every supported pyarrow can write as Parquet.
    level = polars.CompatLevel.oldest()
    try:
        table = numbered.to_arrow(compat_level=level)
        restored = polars.from_arrow(table.slice(0, 0))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        for name, kind in frame.schema.items():  # a panic is no Exception, and does not name the column
            try:
                polars.from_arrow(
                    numbered.select(polars.nth(frame.columns.index(name))).to_arrow(compat_level=level)
                )
            except BaseException as cause:
                raise _refusal(
                    f"A column of type {kind}", kind, f"$[{name!r}]", "Change it with .cast(...)."
                ) from cause
        raise
    for position, (name, kind) in enumerate(frame.schema.items()):
        found = restored.schema.get(str(position)) if isinstance(restored, polars.DataFrame) else None
        if found != kind:
            raise _refusal(f"A column of type {kind}", kind, f"$[{name!r}]", "Change it with .cast(...).")
    return table.rename_columns(frame.columns)


def _arrow_to_polars(pieces: Iterable[pyarrow.Table]) -> object:
    import polars

    frames, names = [], []
    for table in pieces:
        names = table.column_names
        numbered: Any = polars.from_arrow(table.rename_columns([str(number) for number in range(len(names))]))
        frames.append(numbered)
        del table, numbered
    frame = frames[0] if len(frames) == 1 else polars.concat(frames, rechunk=False)
    frame.columns = names
    return frame


def read_plain_polars(file: BinaryIO, empty: pyarrow.Table) -> object | None:
    """Return a frame that polars reads itself, twice as fast as through Arrow; None when it might differ.

    Args:
        file: the Parquet, at any position.
        empty: a table without rows that has the exact schema.
    """
    try:
        import polars
    except ModuleNotFoundError:
        return None  # the error names what is missing
    expected: Any = _arrow_to_polars([empty])
    plain = (polars.Boolean, polars.String, polars.Binary, polars.Date, polars.Datetime)
    if not all(kind.is_numeric() or kind in plain for kind in expected.dtypes) or not all(expected.columns):
        return None
    if any(kind.is_decimal() for kind in expected.dtypes):
        return None
    path = path_of(file)
    file.seek(0)
    # of a temporary file it would read all bytes first
    frame = polars.read_parquet(file) if path is None else polars.read_parquet(path, glob=False)
    return frame if frame.schema == expected.schema else None


def is_small(file: BinaryIO) -> bool:
    """Return whether a file is so small that it is read as a whole; leaves it at its start."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size <= _SMALL_BYTES


def path_of(file: BinaryIO) -> str | None:
    """Return a path at which libraries read a large open file by themselves; None when there is none.

    The file itself is meant, whatever lies at its name by now; it may have no name at all.
    """
    if is_small(file):
        return None
    try:
        path = Path(f"/proc/self/fd/{file.fileno()}")
    except (OSError, AttributeError):
        return None
    return str(path) if path.exists() else None


_SMALL_BYTES = 16 * 1024 * 1024


def check_arrow(table: pyarrow.Table) -> None:
    """Refuse what Arrow can hold and Parquet cannot release.

    Raises:
        SerializationError: names the column.
    """
    if table.num_rows and not table.num_columns:
        raise _refusal("A table of rows without columns", "Table", "$", "Give it a column.")
    for field in table.schema:
        reason = _not_in_parquet(field.type) or _not_a_dictionary(table, field)
        if reason is not None:
            raise _refusal(
                f"A column of type {field.type} ({reason})", field.type, f"$[{field.name!r}]", "Change its type."
            )


def _not_a_dictionary(table: pyarrow.Table, field: pyarrow.Field[Any]) -> str | None:
    import pyarrow

    if not pyarrow.types.is_dictionary(field.type):
        return None
    if pyarrow.types.is_nested(field.type.value_type):
        return "a dictionary of nested values"
    for column, own in zip(table.columns, table.schema, strict=True):
        if own.equals(field) and any(chunk.dictionary.null_count for chunk in column.chunks):
            return "a dictionary that holds null"
    return None


def _not_in_parquet(kind: pyarrow.DataType) -> str | None:
    import pyarrow

    types = pyarrow.types
    if types.is_fixed_size_list(kind) and kind.list_size == 0:
        return "lists of no length"
    if types.is_struct(kind) and kind.num_fields == 0:
        return "a struct without fields"
    if types.is_union(kind) or types.is_run_end_encoded(kind):
        return "no such type in Parquet"
    if types.is_nested(kind):
        return next(
            filter(None, (_not_in_parquet(kind.field(part).type) for part in range(kind.num_fields))), None
        )
    return None


def _refusal(what: str, kind: object, path: str, remedy: str) -> SerializationError:
    return SerializationError(
        f"{what} would not come back from Parquet as it is", path=path, type_name=str(kind), remedy=remedy
    )
