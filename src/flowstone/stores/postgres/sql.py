"""SQL by name: every statement lives in its own file under `sql/<store>/`."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import LiteralString

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
