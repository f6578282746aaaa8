"""Names of tables that others read: of the tables, of their versions, and of the partitions in a column of them.

Statements with names of tables are put together with these: each name is `quoted`, each value a parameter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote

from flowstone.core.declaring import is_storable, shown
from flowstone.core.partitions import PartitionKey, decode_partition
from flowstone.errors import ConfigurationError, PartitionError
from flowstone.sql import load_sql

BOOKS = "flowstone_tables"
"""Schema of the book-keeping, and of rows that are not visible."""
MAX_NAME_BYTES = 63
"""What PostgreSQL takes."""

type SchemaChanges = Literal["widen", "refuse"]


def statement(name: str, **names: str) -> str:
    """Return the text of a statement.

    Args:
        name: its name in `io/sql/tables.sql`.
        **names: what stands for its `{...}`: quoted names and types, never values.

    Example:
        >>> statement("hide_all", table='"main"."orders"').splitlines()[-1]
        'DELETE FROM "main"."orders";'
    """
    return load_sql(f"tables/{name}", "flowstone.io").format(**names)


def quoted(*names: str) -> str:
    """Return identifiers, quoted and joined by dots.

    Example:
        >>> quoted("public", 'odd"name')
        '"public"."odd""name"'
    """
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


class Place(NamedTuple):
    """A table that others read.

    Args:
        schema: its schema.
        table: its name.
    """

    schema: str
    table: str

    @property
    def visible(self) -> str:
        """The table itself, quoted."""
        return quoted(*self)

    @property
    def beside(self) -> str:
        """The table with the rows of versions, quoted."""
        digest = hashlib.sha256(json.dumps(list(self)).encode()).hexdigest()[:12]
        name = "".join(one if one.isalnum() and one.isascii() else "_" for one in self.table[:40])
        return quoted(BOOKS, f"{name}_{digest}")

    def location(self, version: str) -> str:
        """Return what is recorded of a version of the table."""
        return f"{quote(self.schema, safe='')}.{quote(self.table, safe='')}@{quote(version, safe='/')}"

    @classmethod
    def of(cls, location: str) -> tuple[Place, str]:
        """Return table and version of what was recorded.

        Raises:
            ValueError: it is not one of ours.

        Example:
            >>> Place.of(Place("public", "a.b").location("12-1"))
            (Place(schema='public', table='a.b'), '12-1')
        """
        name, at, version = location.rpartition("@")
        schema, dot, table = name.partition(".")
        if not (at and dot and schema and table and version):
            raise ValueError(f"{location!r} is no version of a table")
        return cls(unquote(schema), unquote(table)), unquote(version)


def partition_cell(key: str) -> tuple[str | None, object]:
    """Return the type of the partition column and its value for a partition: dates as dates, text as text.

    Example:
        >>> partition_cell("d:2024-01-01"), partition_cell("s:eu"), partition_cell("")
        (('date', datetime.date(2024, 1, 1)), ('text', 'eu'), (None, None))
    """
    if not key:
        return None, None
    try:
        value = decode_partition(PartitionKey(key))
    except (PartitionError, ValueError):
        value = None
    if isinstance(value, datetime):
        return ("timestamp" if value.tzinfo is None else "timestamptz"), value
    if isinstance(value, date):
        return "date", value
    if isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return "bigint", value
    return "text", value if isinstance(value, str) and is_storable(value) else key_text(key)


def key_text(key: str) -> str:
    """Return a partition key as text that every database keeps.

    Example:
        >>> key_text("s:eu")
        's:eu'
    """
    return key if is_storable(key) else key.encode("unicode_escape").decode("ascii")


def checked_tables(
    about: str, tables: Mapping[str, str] | None, *, max_bytes: int = MAX_NAME_BYTES
) -> dict[str, str]:
    """Return the names of tables by asset that an IO manager was given.

    Args:
        about: its class, for the error.
        tables: what it was given.
        max_bytes: how long a name may be.

    Raises:
        ConfigurationError: one is no name, or two are the same.

    Example:
        >>> checked_tables("TableIO", {"orders": "fact_orders"})
        {'orders': 'fact_orders'}
    """
    given: object = tables
    if given is not None and not isinstance(given, Mapping):
        raise ConfigurationError(f"{about}(tables={shown(given)}): give a dict of assets to names of tables.")
    found = dict(tables or {})
    for asset, table in found.items():
        check_name(f"{about}(tables={{{asset!r}: ...}})", table, max_bytes)
    if len(set(found.values())) < len(found):
        raise ConfigurationError(f"{about}(tables=...): two assets cannot write one table.")
    return found


def check_name(about: str, text: object, max_bytes: int = MAX_NAME_BYTES) -> None:
    """Refuse what is no name of a table, a column or the like.

    Args:
        about: the class and the option, for the error.
        text: what was given.
        max_bytes: how long a name may be.

    Raises:
        ConfigurationError: says which.
    """
    if not isinstance(text, str) or not text or not is_storable(text) or len(text.encode()) > max_bytes:
        raise ConfigurationError(f"{about}: {shown(text)} is no name; give text of 1 to {max_bytes} bytes.")
