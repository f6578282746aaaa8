"""SQL by name: one file per subject, one section per statement.

A file `sql/<subject>.sql` of a package holds statements of one subject in the order of a life, each below a line
`-- name: <statement>`. A large statement is a file of its own, `sql/<statement>.sql`. What several statements have
in common stands once, below a line `-- part: <part>`; it takes the place of each line `-- here: <subject>/<part>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import LiteralString

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)?")
_SECTION = re.compile(r"^-- (name|part): (\w+)\n", re.MULTILINE)
_HERE = re.compile(r"^ *-- here: (\w+)/(\w+)$", re.MULTILINE)


@cache
def load_sql(name: str, package: str = "flowstone.stores.postgres") -> LiteralString:
    """Return the text of one statement, with the first line of its comments only.

    The type is `LiteralString` because the text is part of the package and never of any input: this is what
    lets the type checker refuse SQL that was put together at run time.

    Args:
        name: `<subject>/<statement>`, or `<statement>` for one that has a file of its own.
        package: in whose folder `sql` it lies.

    Raises:
        LookupError: there is no such statement.

    Example:
        >>> load_sql("database/data_directory").splitlines()[-1]
        'SHOW data_directory;'
    """
    if not _NAME.fullmatch(name):
        raise LookupError(f"{name!r} is not the name of a statement; expected <subject>/<statement>.")
    subject, _, section = name.partition("/")
    text = sections(subject, package).get(section)
    if text is None:
        raise LookupError(f"There is no statement {name!r} in sql/{subject}.sql of {package}.")
    return _brief(text)


def _brief(text: LiteralString) -> LiteralString:
    """Leave out comments and margins: the driver translates what has more than 4,096 characters each time."""
    first, *rest = text.strip().splitlines()
    return "\n".join([first, *(line for line in map(str.strip, rest) if not line.startswith("--"))])


@cache
def sections(subject: str, package: str = "flowstone.stores.postgres") -> Mapping[str, LiteralString]:
    """Return the statements of one file by name; the only one of a large statement has the name ''.

    Raises:
        LookupError: there is no such file.

    Example:
        >>> list(sections("partition_keys"))
        ['lock', 'keys', 'changed', 'add', 'remove', 'history']
    """
    texts = _texts(subject, package)
    return {name: _with_parts(text, package) for (kind, name), text in texts.items() if kind == "name"}


def _with_parts(text: LiteralString, package: str) -> LiteralString:
    for found in _HERE.finditer(text):
        part = _texts(found[1], package).get(("part", found[2]))
        if part is None:
            raise LookupError(f"There is no part {found[2]!r} in sql/{found[1]}.sql of {package}.")
        text = text.replace(found[0], part)
    return text


@cache
def _texts(subject: str, package: str) -> Mapping[tuple[str, str], LiteralString]:
    """Return what the lines of one file begin: a statement or a part, by kind and name."""
    file = files(package).joinpath("sql", f"{subject}.sql")
    if not file.is_file():
        raise LookupError(f"sql/{subject}.sql is missing from {package}.")
    text: LiteralString = file.read_text(encoding="utf-8")
    heads = list(_SECTION.finditer(text))
    if not heads:
        return {("name", ""): text}
    ends = [*(head.start() for head in heads[1:]), len(text)]
    return {(head[1], head[2]): text[head.end() : end].strip() for head, end in zip(heads, ends, strict=True)}
