"""Oban's own tables: installed from the package's own statements, in `public`, or in the schema of the project."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from flowstone.stores.postgres.database import Database, with_identifiers
from flowstone.stores.postgres.sql import load_sql

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


def available() -> bool:
    """Whether the package is installed here."""
    return importlib.util.find_spec("oban") is not None


def installed(database: Database) -> bool:
    """Whether the tables are there."""
    with database.connection() as connection:
        return _installed(connection)


def install(connection: Connection[TupleRow], *, schema: str) -> None:
    """Create the tables in a schema when the package is installed and they are missing."""
    if not available() or _installed(connection):
        return
    from oban.schema import install_sql

    connection.execute(with_identifiers(load_sql("queue/schema"), schema=schema))
    connection.execute(install_sql(schema), prepare=False)


def _installed(connection: Connection[TupleRow]) -> bool:
    row = connection.execute(load_sql("queue/installed")).fetchone()
    return bool(row and row[0])
