"""SQL of the PostgreSQL IO manager by name: one statement per file under `io/sql/`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString


@cache
def statement(name: str) -> LiteralString:
    """Return the text of a statement.

    Args:
        name: file name below `io/sql/`, without `.sql`.

    Example:
        >>> statement("read_chunk").splitlines()[-1][:14]
        'SELECT payload'
    """
    return files("flowstone.io").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
