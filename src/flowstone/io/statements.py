"""SQL of the PostgreSQL IO manager by name: one statement per file under `io/sql/`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import LiteralString

from flowstone.core.project import Project


@cache
def statement(name: str, project: Project | None = None) -> LiteralString:
    """Return the text of a statement.

    Args:
        name: file name below `io/sql/`, without `.sql`.
        project: whose tables it means.

    Example:
        >>> statement("read_chunk").splitlines()[-1][:14]
        'SELECT payload'
    """
    text = files("flowstone.io").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return (project or Project()).sql(text)
