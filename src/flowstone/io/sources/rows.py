"""`new_rows`: a ready-made sensor for rows that appear or change in a table.

It goes through the DB-API (PEP 249), so sqlite3, psycopg and their like all serve. `Statement` quotes names and
binds values in the style of the driver; the cursor is a `Watermark`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from flowstone.core.automation.sensor import (
    DEFAULT_EVERY_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    Definition,
    Sensor,
    SensorContext,
    SensorResult,
    seconds_of,
)
from flowstone.core.declaring import known_options
from flowstone.core.partitions import Partition
from flowstone.core.selection import Selection
from flowstone.errors import MissingExtraError, ResourceError, SensorError
from flowstone.io.sources.files import DEFAULT_LIMIT, Taken, Watching, identity_of, refusal, result_of
from flowstone.io.sources.watermark import CursorValue, Place, Watermark, encode_cursor_value

PARAMETER_STYLES = ("qmark", "numeric", "named", "format", "pyformat")
"""How a statement marks its parameters, by the names of PEP 249."""


class RowCursor(Protocol):
    """The part of a DB-API cursor that is used."""

    def execute(self, statement: Any, parameters: Any, /) -> object:
        """Run a statement."""

    def fetchall(self) -> Sequence[Sequence[object]]:
        """Return all rows."""

    def close(self) -> object:
        """Release it."""


@runtime_checkable
class RowConnection(Protocol):
    """The part of a DB-API connection that is used."""

    def cursor(self) -> RowCursor:
        """Return a cursor."""

    def rollback(self) -> object:
        """End the transaction."""

    def close(self) -> object:
        """Close it."""


type Connector = Callable[[], RowConnection | AbstractContextManager[RowConnection]]


def postgres(dsn: str, timeout: timedelta | float) -> Connector:
    """Return what connects to PostgreSQL; statements end by themselves after the timeout.

    Args:
        dsn: `postgresql://...` or `host=... dbname=...`.
        timeout: of a statement, and of connecting; timedelta or seconds.
    """
    timeout_seconds = seconds_of(timeout)

    def connect() -> RowConnection:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtraError("psycopg", "postgres", "new_rows(database=...)") from error
        wait = max(2, round(min(timeout_seconds, 30.0)))
        connection = psycopg.connect(
            dsn, autocommit=True, connect_timeout=wait, application_name="flowstone sensor"
        )
        milliseconds = str(max(1, round(timeout_seconds * 1000)))
        connection.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", [milliseconds])
        return connection

    return connect


@contextmanager
def opened(source: object, what: str) -> Iterator[RowConnection]:
    """Give a connection from what users name one by.

    A connection is used as it is and its transaction rolled back afterwards; what a function returns is
    closed, or, if it is a context manager like that of a pool, left.

    Args:
        source: a connection, a function that returns one (or a context manager around one), or a pool with
            such a method `connection`.
        what: what the user called it, for errors.

    Raises:
        ResourceError: it is none of these.
    """
    if isinstance(source, RowConnection):
        try:
            yield source
        finally:
            source.rollback()
        return
    pooled = getattr(source, "connection", None)
    make = pooled if callable(pooled) else source
    made = make() if callable(make) else None
    if isinstance(made, RowConnection):
        try:
            yield made
        finally:
            made.close()
    elif isinstance(made, AbstractContextManager):
        with made as inner:
            yield inner
    else:
        raise ResourceError(
            f"{what} gives {type(source).__qualname__!r}, which is neither a DB-API connection nor a function or "
            "pool that gives one."
        )


def parameter_style(connection: RowConnection) -> str:
    """Return how statements mark parameters on this connection: what its module says.

    Raises:
        ResourceError: its module does not say.

    Example:
        >>> import sqlite3
        >>> parameter_style(sqlite3.connect(":memory:"))
        'qmark'
    """
    for kind in type(connection).__mro__:
        parts = kind.__module__.split(".")
        for length in range(len(parts), 0, -1):
            style = getattr(sys.modules.get(".".join(parts[:length])), "paramstyle", None)
            if style in PARAMETER_STYLES:
                return str(style)
    raise ResourceError(
        f"{type(connection).__module__}.{type(connection).__qualname__} does not say how its statements mark "
        f"parameters; pass new_rows(..., dialect=Dialect(parameter_style=...)): "
        f"one of {', '.join(PARAMETER_STYLES)}."
    )


@dataclass(frozen=True, slots=True)
class Source:
    """What is read.

    Args:
        columns: columns to read; the first is the watermark, the second distinguishes rows of one watermark.
        table: parts of the table's name, such as `("sales", "orders")`; they are quoted one by one.
        query: in its place, a query that gives such rows; the table is its name then.
        quote: character around names: `"` as the standard says, or a backquote for MySQL.
    """

    columns: tuple[str, ...]
    table: tuple[str, ...] = ()
    query: str | None = None
    quote: str = '"'


@dataclass(slots=True)
class Statement:
    """A statement with its parameters, in the style of a driver.

    Example:
        >>> source = Source(("at", "id"), table=("orders",))
        >>> made = Statement.after(source, Watermark(7, 1, None), limit=10, style="qmark")
        >>> made.text.split("WHERE ")[1]
        '"at" > ? OR ("at" = ? AND "id" > ?) ORDER BY "at", "id" LIMIT 10'
        >>> made.parameters
        [7, 7, 1]
    """

    style: str
    text: str = ""
    _values: list[CursorValue] = field(default_factory=list)

    @classmethod
    def after(cls, source: Source, mark: Watermark | None, *, limit: int, style: str) -> Statement:
        """Return the statement for the first rows on or after a watermark, in their order."""
        made = cls(style)
        columns = [made._name(source, column) for column in source.columns]
        by, tie = columns[0], columns[1]
        words = ["SELECT", ", ".join(columns), "FROM", made._origin(source), "WHERE", made._where(by, tie, mark)]
        made.text = " ".join([*words, "ORDER BY", f"{by}, {tie}", "LIMIT", str(limit)])
        return made

    @property
    def parameters(self) -> object:
        """The values, as the style wants them."""
        if self.style in ("named", "pyformat"):
            return {f"p{number}": value for number, value in enumerate(self._values, 1)}
        return self._values

    def _where(self, by: str, tie: str, mark: Watermark | None) -> str:
        if mark is None:
            return f"{by} IS NOT NULL"
        if mark.seen is not None:
            return f"{by} >= {self._bind(mark.at)}"
        later = f"{by} > {self._bind(mark.at)}"
        return f"{later} OR ({by} = {self._bind(mark.at)} AND {tie} > {self._bind(mark.after)})"

    def _origin(self, source: Source) -> str:
        if source.query is not None:
            return f"({self._plain(source.query.strip().rstrip(';'))}\n) AS {self._name(source, source.table[-1])}"
        return ".".join([self._name(source, part) for part in source.table])

    def _name(self, source: Source, name: str) -> str:
        return self._plain(f"{source.quote}{name.replace(source.quote, source.quote * 2)}{source.quote}")

    def _plain(self, text: str) -> str:
        """Return text in which nothing is a parameter."""
        return text.replace("%", "%%") if self.style in ("format", "pyformat") else text

    def _bind(self, value: CursorValue) -> str:
        self._values.append(value)
        number = len(self._values)
        marks = {"qmark": "?", "numeric": f":{number}", "named": f":p{number}", "format": "%s"}
        return marks.get(self.style, f"%(p{number})s")


type Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What is peculiar to a database.

    Args:
        parameter_style: `qmark`, `numeric`, `named`, `format` or `pyformat`; None asks the driver's module.
        quote: what stands around names; a backquote for MySQL.
    """

    parameter_style: str | None = None
    quote: str = '"'


_USUAL = Dialect()


@known_options("new_rows()")
def new_rows(
    table: str | Sequence[str],
    *,
    name: str,
    selection: Selection,
    watermark: str,
    partition: Callable[[Row], Partition] | None = None,
    key: str | None = None,
    columns: Sequence[str] = (),
    database: str | Connector | None = None,
    resource: str | None = None,
    query: str | None = None,
    dialect: Dialect = _USUAL,
    add_to: Definition | None = None,
    settle: timedelta | float = 0.0,
    limit: int = DEFAULT_LIMIT,
    every: timedelta | float = DEFAULT_EVERY_SECONDS,
    timeout: timedelta | float = DEFAULT_TIMEOUT_SECONDS,
    paused: bool = False,
) -> Sensor:
    """Return a sensor that runs a selection when rows appear, or change, beyond a watermark.

    With `partition`, each partition that has new rows gets a run; without it, all of them together get one.

    Args:
        table: name of a table, or its parts: `("sales", "orders")`. With a query, a name for it.
        name: name of the sensor.
        selection: what to run.
        watermark: column that grows: a time of change or a number. Rows where it is NULL are left out.
        partition: which partition a row (a mapping) belongs to; one for which it returns None asks for nothing.
        key: column that distinguishes rows of one watermark; needed unless each row has a watermark of its own.
        columns: more columns that `partition` needs.
        database: DSN of a PostgreSQL, or a function that returns a DB-API connection.
        resource: in its place, name of a resource of the app: such a function, a pool, or a connection.
        query: a query that gives the rows, in place of the table.
        dialect: for databases that are unlike PostgreSQL and SQLite.
        add_to: dynamic partitions, by name or definition, to which `partition(...)` is added first.
        settle: what is younger than this (timedelta or seconds) is left for later, because it may be half written,
            or something older may still come to light.
        limit: most things to take at once, 1 to 10,000; the rest is taken the next time.
        every: see `sensor`; so are `timeout` and `paused`.

    Raises:
        DefinitionError: an option cannot work.

    Example:
        >>> new_rows("sales", name="new_sales", selection="report", watermark="id", resource="db").requires
        ('db',)
    """
    options = Watching.of(name, settle=settle, limit=limit, add_to=add_to, has_partition=partition is not None)
    if isinstance(columns, str):
        raise refusal(name, "give the name of a table, and a list of columns")
    named = (watermark, watermark if key is None else key, *columns)
    rows = _Rows(name, _source(name, table, named, query, dialect), options, dialect)
    connect = _connector(name, database, resource, timeout)
    requires = [] if resource is None else [resource]

    def poll(context: SensorContext) -> SensorResult:
        mark = Watermark.from_cursor(context.cursor, sensor=name)
        where = context.resources[requires[0]] if requires else connect
        return result_of(context, mark, rows.new(mark, context, where), partition, options.add_to)

    return Sensor(
        poll,
        name=name,
        selection=selection,
        requires=requires,
        description="New rows.",
        every=every,
        timeout=timeout,
        paused=paused,
    )


class _Rows:
    """The rows that one sensor watches."""

    def __init__(self, name: str, source: Source, options: Watching, dialect: Dialect) -> None:
        self._name = name
        self._source = source
        self._settle = options.settle
        self._limit = options.limit
        self._style = dialect.parameter_style

    def new(self, mark: Watermark | None, context: SensorContext, where: object) -> list[Taken[Row]]:
        """Return the first rows after the mark."""
        latest = context.now - self._settle if self._settle else None
        found = []
        for taken in self._read(mark, where):
            if latest is not None and self._moment(taken.place.at) > latest:
                break  # they come in order: the rest is younger still
            if mark is None or mark.is_before(taken.place):
                found.append(taken)
        return found[: self._limit]

    def _read(self, mark: Watermark | None, where: object) -> Iterator[Taken[Row]]:
        # those on the watermark that were taken already come along
        limit = self._limit + (len(mark.seen) if mark is not None and mark.seen is not None else 0)
        with opened(where, f"Sensor {self._name!r}: what it reads from") as connection:
            style = self._style or parameter_style(connection)
            statement = Statement.after(self._source, mark, limit=limit, style=style)
            cursor = connection.cursor()
            try:
                cursor.execute(statement.text, statement.parameters)
                rows = cursor.fetchall()
            finally:
                cursor.close()
        return map(self._taken, rows)

    def _taken(self, row: Sequence[object]) -> Taken[Row]:
        try:
            at, tie = encode_cursor_value(row[0]), encode_cursor_value(row[1])
        except ValueError as error:
            raise SensorError(
                self._name,
                f"a row with {self._source.columns[0]} = {row[0]!r} and {self._source.columns[1]} = {row[1]!r} "
                f"cannot be placed in an order: {error}. The key must be unique and not NULL.",
            ) from error
        values = dict(zip(self._source.columns, row, strict=True))
        return Taken(values, Place(row[0], row[1]), identity_of([at, tie]))  # type: ignore[arg-type]  # encoded above

    def _moment(self, at: object) -> datetime:
        if not isinstance(at, datetime):
            raise SensorError(
                self._name,
                f"settle=... needs a watermark that is a date and time; {self._source.columns[0]!r} holds "
                f"{type(at).__qualname__}. Leave it out.",
            )
        return at if at.tzinfo else at.replace(tzinfo=UTC)


def _source(name: str, table: object, columns: tuple[str, ...], query: str | None, dialect: Dialect) -> Source:
    if dialect.parameter_style not in (None, *PARAMETER_STYLES):
        raise refusal(name, f"parameter_style={dialect.parameter_style!r}: one of {', '.join(PARAMETER_STYLES)}")
    parts = (table,) if isinstance(table, str) else table
    if not isinstance(parts, list | tuple) or not parts:
        raise refusal(name, "give the name of a table, and a list of columns")
    for one in (*columns, *parts):
        if not isinstance(one, str) or not one or "\x00" in one:
            raise refusal(name, f"{one!r} where the name of a table or column is needed")
    return Source(columns, table=tuple(parts), query=query, quote=dialect.quote)


def _connector(
    name: str, database: str | Connector | None, resource: str | None, timeout: timedelta | float
) -> Connector | None:
    """Return what connects; None when a resource does."""
    if (database is None) is (resource is None):
        raise refusal(name, "give database=... (a DSN, or a function that connects) or resource=..., one of them")
    return postgres(database, timeout) if isinstance(database, str) else database
