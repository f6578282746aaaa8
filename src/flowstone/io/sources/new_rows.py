"""A ready-made sensor for rows that appear or change in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flowstone.core.automation.sensing import Definition, SensorContext, SensorResult
from flowstone.core.automation.sensor import DEFAULT_EVERY_SECONDS, DEFAULT_TIMEOUT_SECONDS, Sensor
from flowstone.core.declaring import known_options
from flowstone.core.partition import Partition
from flowstone.core.selection import Selection
from flowstone.errors import SensorError
from flowstone.io.sources.connections import PARAMETER_STYLES, Connector, opened, parameter_style, postgres
from flowstone.io.sources.exact import encode_cursor_value
from flowstone.io.sources.statement import Source, Statement
from flowstone.io.sources.taking import DEFAULT_LIMIT, Taken, Watching, identity_of, refusal, result_of
from flowstone.io.sources.watermark import Place, Watermark

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
