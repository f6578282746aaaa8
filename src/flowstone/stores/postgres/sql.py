"""SQL by name: every statement lives in its own file under `sql/<store>/`, and its columns are read by name.

The type of a row is a `NamedTuple` whose fields are the columns of the statement, in their order: about as fast as
the tuple of the driver, and the type checker sees each column. A test compares names and types with what the
database says of every statement that is run through `fetch_...`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, LiteralString

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)+")


@cache
def load_sql(name: str) -> LiteralString:
    """Return the text of one statement.

    The type is `LiteralString` because the text is part of the package and never of any input: this is what
    lets the type checker refuse SQL that was put together at run time.

    Args:
        name: `<store>/<statement>`, without the ending `.sql`.

    Raises:
        LookupError: no such file is part of the package.

    Example:
        >>> load_sql("database/data_directory").splitlines()[-1]
        'SHOW data_directory;'
    """
    if not _NAME.fullmatch(name):
        raise LookupError(f"{name!r} is not the name of a statement; expected <store>/<statement>.")
    file = files("flowstone.stores.postgres").joinpath("sql", *f"{name}.sql".split("/"))
    if not file.is_file():
        raise LookupError(f"There is no statement {name!r}: sql/{name}.sql is missing from the package.")
    return file.read_text(encoding="utf-8")


type Parameters = Mapping[str, object] | None


def fetch_all[R: tuple[Any, ...]](
    connection: Connection[TupleRow], kind: type[R], statement: str, parameters: Parameters = None
) -> list[R]:
    """Run a statement and return its rows.

    Args:
        connection: where.
        kind: a `NamedTuple` with the columns of the statement as fields, in their order.
        statement: its name, see `load_sql`.
        parameters: its parameters by name.
    """
    return list(map(_maker(kind), connection.execute(load_sql(statement), parameters).fetchall()))


def fetch_one[R: tuple[Any, ...]](
    connection: Connection[TupleRow], kind: type[R], statement: str, parameters: Parameters = None
) -> R | None:
    """Run a statement and return its first row, or None when it has none; see `fetch_all`."""
    row = connection.execute(load_sql(statement), parameters).fetchone()
    return None if row is None else _maker(kind)(row)


def fetch_column[T](
    connection: Connection[TupleRow], kind: type[T], statement: str, parameters: Parameters = None
) -> list[T]:
    """Run a statement with one column and return its values.

    Args:
        connection: where.
        kind: the type of the values, for the type checker.
        statement: its name, see `load_sql`.
        parameters: its parameters by name.
    """
    return [value for (value,) in connection.execute(load_sql(statement), parameters)]


def fetch_value[T](
    connection: Connection[TupleRow], kind: type[T], statement: str, parameters: Parameters = None
) -> T | None:
    """Run a statement with one column and return the value of its first row, or None; see `fetch_column`."""
    for value in fetch_column(connection, kind, statement, parameters):
        return value
    return None


def _maker[R: tuple[Any, ...]](kind: type[R]) -> Callable[[Sequence[Any]], R]:
    make: Callable[[Sequence[Any]], R] = kind._make  # type: ignore[attr-defined]  # no bound says NamedTuple
    return make
