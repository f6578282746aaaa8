"""A ready-made sensor for rows that appear or change in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Unpack

from flowstone.core.automation.sensing import SensorContext, SensorResult
from flowstone.core.automation.sensor import DEFAULT_TIMEOUT_SECONDS, Sensor, sensor
from flowstone.core.partition import Partition
from flowstone.core.selection import Selection
from flowstone.errors import SensorError
from flowstone.io.sources.connections import PARAMETER_STYLES, Connector, opened, parameter_style, postgres
from flowstone.io.sources.exact import encode_exact
from flowstone.io.sources.statement import Source, Statement
from flowstone.io.sources.taking import HowToWatch, Taken, Watching, identity_of, refusal, result_of
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


class HowToWatchRows(HowToWatch, total=False):
    """Options of `new_rows`, beside those of `HowToWatch` (there, `settle` is 0 by default).

    Attributes:
        key: column that distinguishes rows of one watermark; needed unless each row has a watermark of its own.
        columns: more columns that `partition` needs.
        database: DSN of a PostgreSQL, or a function that returns a DB-API connection.
        resource: in its place, name of a resource of the app: such a function, a pool, or a connection.
        query: a query that gives the rows, in place of the table.
        dialect: for databases that are unlike PostgreSQL and SQLite.
    """

    key: str
    columns: Sequence[str]
    database: str | Connector
    resource: str
    query: str
    dialect: Dialect


def new_rows(
    table: str | Sequence[str],
    *,
    name: str,
    selection: Selection,
    watermark: str,
    partition: Callable[[Row], Partition] | None = None,
    **how: Unpack[HowToWatchRows],
) -> Sensor:
    """Return a sensor that runs a selection when rows appear, or change, beyond a watermark.

    With `partition`, each partition that has new rows gets a run; without it, all of them together get one.

    Args:
        table: name of a table, or its parts: `("sales", "orders")`. With a query, a name for it.
        name: name of the sensor.
        selection: what to run.
        watermark: column that grows: a time of change or a number. Rows where it is NULL are left out.
        partition: which partition a row (a mapping) belongs to; one for which it returns None asks for nothing.
        **how: see `HowToWatchRows`.

    Raises:
        DefinitionError: an option cannot work.

    Example:
        >>> new_rows("sales", name="new_sales", selection="report", watermark="id", resource="db").requires
        ('db',)
    """
    options = Watching.of(name, how, HowToWatchRows, settle_seconds=0.0)
    rows = _Rows(name, _source(name, table, watermark, how), options, how.get("dialect", Dialect()))
    connect, requires = _connect(name, how)
    options.check(name, has_partition=partition is not None)

    def look(context: SensorContext) -> SensorResult:
        mark = Watermark.from_cursor(context.cursor, sensor=name)
        where = context.resources[requires[0]] if requires else connect
        return result_of(context, mark, rows.new(mark, context, where), partition, options.add_to)

    declare = sensor(name=name, selection=selection, requires=requires, description="New rows.", **options.timing)
    return declare(look)


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
            at, tie = encode_exact(row[0]), encode_exact(row[1])
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


def _source(name: str, table: object, watermark: str, how: HowToWatchRows) -> Source:
    dialect = how.get("dialect", Dialect())
    if dialect.parameter_style not in (None, *PARAMETER_STYLES):
        raise refusal(name, f"parameter_style={dialect.parameter_style!r}: one of {', '.join(PARAMETER_STYLES)}")
    parts = (table,) if isinstance(table, str) else table
    columns = (watermark, how.get("key", watermark), *how.get("columns", ()))
    if not isinstance(parts, list | tuple) or not parts or isinstance(how.get("columns"), str):
        raise refusal(name, "give the name of a table, and a list of columns")
    for one in (*columns, *parts):
        if not isinstance(one, str) or not one or "\x00" in one:
            raise refusal(name, f"{one!r} where the name of a table or column is needed")
    return Source(columns, table=tuple(parts), query=how.get("query"), quote=dialect.quote)


def _connect(name: str, how: HowToWatchRows) -> tuple[Connector | None, list[str]]:
    """Return what connects, or the resource that does."""
    database, resource = how.get("database"), how.get("resource")
    if (database is None) is (resource is None):
        raise refusal(name, "give database=... (a DSN, or a function that connects) or resource=..., one of them")
    if isinstance(database, str):
        return postgres(database, how.get("timeout", DEFAULT_TIMEOUT_SECONDS)), []
    return database, [] if resource is None else [resource]
