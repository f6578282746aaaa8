"""Between Arrow and columns of SQL: which type a column gets, how it may change, and the same values back.

A column has one of a few types that PostgreSQL and DuckDB share (`SqlColumn.kind`); what Arrow distinguishes
beyond that (`int8`, categories, time zones) is kept beside the rows of a version, so that it comes back.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flowstone.core.output import type_name
from flowstone.errors import MissingExtraError, SerializationError
from flowstone.io.encoding import HashingWriter
from flowstone.io.table_types import arrow_to_frame, check_arrow, frame_to_arrow
from flowstone.io.tables import restore_schema, schema_to_text, text_to_schema

if TYPE_CHECKING:
    import pyarrow

_LIBRARIES = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}
_BATCH_ROWS = 65_536
_MAX_NAME_BYTES = 63
_RESERVED = "flowstone_"
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_WHOLE = ("smallint", "integer", "bigint")
_DIGITS = {"smallint": 5, "integer": 10, "bigint": 19}


class SqlColumn(NamedTuple):
    """A column of a table.

    Args:
        name: its name.
        kind: its type: `boolean`, `smallint`, `integer`, `bigint`, `numeric(p,s)`, `real`, `double`, `text`,
            `bytes`, `date`, `time`, `timestamp`, `timestamptz` or `json`.
    """

    name: str
    kind: str


class SqlTable(NamedTuple):
    """A value on its way into tables of SQL.

    Args:
        data: its rows, in the types of `columns`.
        columns: the columns that it has in SQL; none for a table without rows of which no type is known.
        description: what is needed to make the same value of the rows, as JSON.
        size_bytes: size of the rows.
        content_hash: SHA-256 of the rows and their types.
    """

    data: pyarrow.Table
    columns: tuple[SqlColumn, ...]
    description: dict[str, Any]
    size_bytes: int
    content_hash: str


def require_pyarrow(extra: str, purpose: str) -> None:
    """Refuse to go on without pyarrow.

    Raises:
        MissingExtraError: names the extra to install.
    """
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", extra, purpose) from error


def to_sql(value: object, *, nested: bool = False) -> SqlTable:
    """Return a DataFrame of pandas or polars, or a pyarrow Table, as rows for tables of SQL.

    Args:
        value: the value.
        nested: whether lists and structs stay what they are; else they become JSON.

    Raises:
        SerializationError: it is something else, or a column cannot be kept exactly; names the column.

    Example:
        >>> import pyarrow
        >>> to_sql(pyarrow.table({"n": pyarrow.array([1], pyarrow.int8())})).columns
        (SqlColumn(name='n', kind='smallint'),)
    """
    import pyarrow

    kind = next(
        (
            library
            for library, name in _LIBRARIES.items()
            if library in sys.modules and type(value) is getattr(sys.modules[library], name, None)
        ),
        None,
    )
    if kind is None:
        raise SerializationError(
            "A table takes DataFrames of pandas and polars and pyarrow Tables only",
            path="$",
            type_name=type_name(value),
            remedy="Return one of these, or choose another IO manager for this asset.",
        )
    try:
        table, beside = frame_to_arrow(kind, value)
        check_arrow(table)
    except pyarrow.ArrowException as error:
        raise SerializationError(
            f"Arrow cannot hold this table ({error})",
            path="$",
            type_name=type_name(value),
            remedy="Give every column one plain type.",
        ) from error
    _check_names(table.column_names)
    columns, arrays = [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        found = _plain(column, name, nested=nested)
        if found is not None:  # a column of nulls alone has no type yet
            arrays.append(found[1])
            columns.append(SqlColumn(name, found[0]))
    if table.num_rows and not columns:
        raise _refused("A table without columns that hold anything cannot be a table of SQL", "$", "Table")
    data = pyarrow.Table.from_arrays(arrays, names=[column.name for column in columns])
    description = {"library": kind, "schema": schema_to_text(table), "beside": beside, "rows": table.num_rows}
    size, digest = _digest(data)
    return SqlTable(data, tuple(columns), description, size, digest)


def check_typed(data: pyarrow.Table) -> None:
    """Refuse to make a table of a value that has neither rows nor a column whose type is known.

    Raises:
        SerializationError: says what to do.
    """
    if not data.num_columns:
        raise SerializationError(
            "The first value of a table has no rows and no columns of a known type, so the table cannot be made",
            path="$",
            type_name="Table",
            remedy="Give its columns types, such as frame.astype({'n': 'int64'}).",
        )


def from_sql(data: pyarrow.Table, description: Mapping[str, Any]) -> object:
    """Return the value whose rows were read back.

    Args:
        data: the rows, in the types of `to_arrow_type`.
        description: what `to_sql` described.
    """
    import pyarrow

    schema = text_to_schema(description["schema"])
    arrays = []
    for field in schema:
        if field.name in data.column_names:
            arrays.append(_as_it_was(data.column(field.name), field.type))
        else:
            arrays.append(pyarrow.chunked_array([pyarrow.nulls(data.num_rows, field.type)]))
    table = pyarrow.Table.from_arrays(arrays, names=schema.names)
    table = restore_schema(table, description["schema"])
    return arrow_to_frame(description["library"], [table], table.num_rows, description["beside"])


def to_arrow_type(kind: str) -> pyarrow.DataType:
    """Return the Arrow type in which rows of a column travel.

    Example:
        >>> str(to_arrow_type("numeric(10,2)"))
        'decimal128(10, 2)'
    """
    import pyarrow

    found = _NUMERIC.fullmatch(kind)
    if found is not None:
        return pyarrow.decimal128(int(found[1]), int(found[2]))
    types = {
        "boolean": pyarrow.bool_(),
        "smallint": pyarrow.int16(),
        "integer": pyarrow.int32(),
        "bigint": pyarrow.int64(),
        "real": pyarrow.float32(),
        "double": pyarrow.float64(),
        "text": pyarrow.string(),
        "json": pyarrow.string(),
        "bytes": pyarrow.binary(),
        "date": pyarrow.date32(),
        "time": pyarrow.time64("us"),
        "timestamp": pyarrow.timestamp("us"),
        "timestamptz": pyarrow.timestamp("us", "UTC"),
    }
    return types[kind]


def wider(one: str, other: str) -> str | None:
    """Return the type that holds the values of two types exactly; None when there is none.

    Example:
        >>> wider("integer", "bigint"), wider("integer", "double"), wider("text", "integer")
        ('bigint', 'double', None)
    """
    if one == other:
        return one
    if one in _WHOLE and other in _WHOLE:
        return max(one, other, key=_WHOLE.index)
    for first, second in ((one, other), (other, one)):
        if first in ("smallint", "integer") and second == "double":
            return "double"
        if (first, second) == ("real", "double") or (first, second) == ("smallint", "real"):
            return second
        if (first, second) == ("date", "timestamp"):
            return "timestamp"
        digits = _NUMERIC.fullmatch(second)
        if digits is None:
            continue
        before, after = int(digits[1]) - int(digits[2]), int(digits[2])
        known = _NUMERIC.fullmatch(first)
        if first in _WHOLE:
            before = max(before, _DIGITS[first])
        elif known is not None:
            before, after = max(before, int(known[1]) - int(known[2])), max(after, int(known[2]))
        else:
            continue
        return f"numeric({before + after},{after})" if before + after <= 38 else None
    return None


def _plain(column: pyarrow.ChunkedArray, name: str, *, nested: bool) -> tuple[str, pyarrow.ChunkedArray] | None:
    """Return a column in one of the types of SQL; None when it holds nothing but nulls and has no other type."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = _kind(column.type)
    if kind is None:
        raise _refused(f"A column of type {column.type} has no type in SQL", f"$[{name!r}]", str(column.type))
    if kind == "null":
        return None
    if kind == "json":
        return kind, column if nested else _to_json(column, name)
    try:
        return kind, column.cast(to_arrow_type(kind))
    except pyarrow.ArrowException as error:
        raise _refused(
            f"A column of type {column.type} cannot be kept exactly: SQL counts time in microseconds ({error})",
            f"$[{name!r}]",
            str(column.type),
        ) from error


def _kind(kind: pyarrow.DataType) -> str | None:
    import pyarrow

    types = pyarrow.types
    if types.is_null(kind):
        return "null"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind):
        names = {"int8": 0, "uint8": 0, "int16": 0, "uint16": 1, "int32": 1, "uint32": 2, "int64": 2}
        return "numeric(20,0)" if str(kind) == "uint64" else _WHOLE[names[str(kind)]]
    if types.is_floating(kind):
        return "double" if types.is_float64(kind) else "real"
    if types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})" if 0 <= kind.scale <= kind.precision <= 38 else None
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    binary = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    if any(is_binary(kind) for is_binary in binary):
        return "bytes"
    if types.is_date(kind):
        return "date"
    if types.is_time(kind):
        return "time"
    if types.is_timestamp(kind):
        return "timestamp" if kind.tz is None else "timestamptz"
    return "json" if _is_json(kind) else None


def _is_json(kind: pyarrow.DataType) -> bool:
    """Whether nested values of this type come back from JSON as they were."""
    import pyarrow

    types = pyarrow.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    if types.is_struct(kind):
        return all(_is_json(kind.field(part).type) for part in range(kind.num_fields))
    plain = (types.is_boolean, types.is_integer, types.is_string, types.is_large_string, types.is_float64)
    return any(is_plain(kind) for is_plain in plain)


def _to_json(column: pyarrow.ChunkedArray, name: str) -> pyarrow.ChunkedArray:
    import pyarrow

    try:
        texts = [
            None if one is None else json.dumps(one, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            for one in column.to_pylist()
        ]
    except ValueError as error:
        raise _refused("A nested NaN or infinity has no JSON", f"$[{name!r}]", str(column.type)) from error
    return pyarrow.chunked_array([pyarrow.array(texts, pyarrow.string())])


def _as_it_was(column: pyarrow.ChunkedArray, kind: pyarrow.DataType) -> pyarrow.ChunkedArray:
    """Return a column that was read in the type that it was stored from; categories are restored later."""
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        return column.cast(kind.value_type) if column.type != kind.value_type else column
    if _kind(kind) == "json" and not pyarrow.types.is_nested(column.type):
        values = [None if one is None else json.loads(one) for one in column.to_pylist()]
        return pyarrow.chunked_array([pyarrow.array(values, kind)])
    return column if column.type == kind else column.cast(kind)


def _check_names(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        problem = ""
        if not name or "\x00" in name:
            problem = "A column needs a name"
        elif len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
            problem = f"The name of a column has more than {_MAX_NAME_BYTES} bytes"
        elif name.lower().startswith(_RESERVED):
            problem = f"The names of columns that begin with {_RESERVED!r} are taken"
        elif name.lower() in seen:
            problem = f"Two columns have the same name in SQL, {seen[name.lower()]!r} and {name!r}"
        if problem:
            raise _refused(problem, f"$[{name[:_MAX_NAME_BYTES]!r}]", "column")
        seen[name.lower()] = name


def _digest(data: pyarrow.Table) -> tuple[int, str]:
    import pyarrow

    with Path(os.devnull).open("wb") as nowhere:
        sink = HashingWriter(nowhere)
        with pyarrow.ipc.new_stream(pyarrow.PythonFile(sink, mode="w"), data.schema) as writer:
            for batch in data.combine_chunks().to_batches(max_chunksize=_BATCH_ROWS):
                writer.write_batch(batch)
        return sink.size_bytes, sink.content_hash


def _refused(problem: str, path: str, kind: str) -> SerializationError:
    return SerializationError(
        problem,
        path=path,
        type_name=kind,
        remedy="Change or rename the column, or choose another IO manager for this asset.",
    )
