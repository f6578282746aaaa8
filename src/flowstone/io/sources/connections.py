"""Connections to databases of others, after the DB-API (PEP 249): sqlite3, psycopg and their like."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

from flowstone.core.automation.sensor import seconds_of
from flowstone.errors import MissingExtraError, ResourceError

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
