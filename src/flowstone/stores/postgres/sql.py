"""Rows by the names of their columns: how a statement is run and read.

No row is read by number. A statement names its columns as the fields of a class, and the type checker sees each of
them: a record of the core where one can be made straight from the row, else a `NamedTuple`, which is about as fast
as the tuple of the driver. A test compares names and types with what the database says of every statement that is
run through `fetch_...`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from flowstone.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection, Cursor
    from psycopg.rows import RowMaker


type Parameters = Mapping[str, Any] | None


def fetch_all[T](
    connection: Connection[Any],
    kind: type[T],
    statement: str,
    parameters: Parameters = None,
    *,
    prepare: bool | None = None,
) -> list[T]:
    """Run a statement and return its rows.

    Columns are matched with fields by their names, and values turned into what the fields are annotated with:
    members of enums, tuples of arrays, and what a class makes of JSON with its `from_json`.

    Args:
        connection: where.
        kind: a `NamedTuple` or a dataclass with a field for each column of the statement.
        statement: its name, see `load_sql`.
        parameters: its parameters by name.
        prepare: False has it planned anew each time, for these parameters.
    """
    return _rows(connection, kind, statement, parameters, prepare).fetchall()


def fetch_one[T](
    connection: Connection[Any], kind: type[T], statement: str, parameters: Parameters = None
) -> T | None:
    """Run a statement and return its first row, or None when it has none; see `fetch_all`."""
    return _rows(connection, kind, statement, parameters).fetchone()


def fetch_column[T](
    connection: Connection[Any],
    kind: type[T],
    statement: str,
    parameters: Parameters = None,
    *,
    prepare: bool | None = None,
) -> list[T]:
    """Run a statement with one column and return its values.

    Args:
        connection: where.
        kind: the type of the values, for the type checker.
        statement: its name, see `load_sql`.
        parameters: its parameters by name.
        prepare: see `fetch_all`.
    """
    return [value for (value,) in connection.execute(load_sql(statement), parameters, **_options(prepare))]


def fetch_value[T](
    connection: Connection[Any], kind: type[T], statement: str, parameters: Parameters = None
) -> T | None:
    """Run a statement with one column and return the value of its first row, or None; see `fetch_column`."""
    for value in fetch_column(connection, kind, statement, parameters):
        return value
    return None


def _rows[T](
    connection: Connection[Any],
    kind: type[T],
    statement: str,
    parameters: Parameters,
    prepare: bool | None = None,
) -> Cursor[T]:
    hashable: Any = kind
    cursor: Cursor[T] = connection.cursor(row_factory=_rows_of(hashable, statement))
    return cursor.execute(load_sql(statement), parameters, **_options(prepare))


def _options(prepare: bool | None) -> dict[str, Any]:
    """Return the options of `execute`; connections of a caller have none."""
    return {} if prepare is None else {"prepare": prepare}


@cache
def _rows_of(kind: Any, statement: str) -> Callable[[Cursor[Any]], RowMaker[Any]]:
    """Return a row factory that makes instances of a class, as `psycopg.rows.class_row` does.

    The columns of a statement are compared with the fields when it runs for the first time.
    """
    known: list[RowMaker[Any]] = []

    def row_factory(cursor: Cursor[Any]) -> RowMaker[Any]:
        if not known:
            result = cursor.pgresult
            assert result is not None
            known.append(_maker(kind, tuple(result.fname(column) for column in range(result.nfields))))
        return known[0]

    return row_factory


def _maker(kind: Any, columns: tuple[bytes | None, ...]) -> RowMaker[Any]:
    """Return what makes an instance of the values of a row."""
    names = tuple(column.decode() for column in columns if column)
    hints = get_type_hints(kind)
    if unknown := [name for name in names if name not in hints]:
        raise TypeError(f"{kind} has no field for the columns {', '.join(unknown)}.")
    build: RowMaker[Any]
    if names == getattr(kind, "_fields", None):
        build = kind._make
    elif names == _in_order(kind)[: len(names)]:

        def build(values: Sequence[Any]) -> Any:
            return kind(*values)
    else:

        def build(values: Sequence[Any]) -> Any:
            return kind(**dict(zip(names, values, strict=True)))

    converters = [(position, _converter(hints[name])) for position, name in enumerate(names)]
    converted = [(position, convert) for position, convert in converters if convert is not None]
    if not converted:
        return build

    def make(values: Sequence[Any]) -> Any:
        turned = list(values)
        for position, convert in converted:
            turned[position] = convert(turned[position])
        return build(turned)

    return make


def _in_order(kind: Any) -> tuple[str, ...]:
    """Return the arguments that a dataclass takes by position."""
    return tuple(one.name for one in fields(kind) if not one.kw_only) if is_dataclass(kind) else ()


def _converter(hint: Any) -> Callable[[Any], Any] | None:
    """Return what turns a value of the driver into one of an annotated type; None when it is one already."""
    if isinstance(hint, UnionType) and NoneType in get_args(hint):
        (*others,) = (one for one in get_args(hint) if one is not NoneType)
        convert = _converter(others[0]) if len(others) == 1 else None
        return None if convert is None else lambda value: None if value is None else convert(value)
    if get_origin(hint) is tuple:
        return lambda value: tuple(value or ())
    if isinstance(hint, type) and issubclass(hint, Enum):
        # a look into a dict takes a fifth of the time of a call of the class
        return {member.value: member for member in hint}.__getitem__
    return getattr(hint, "from_json", None)
