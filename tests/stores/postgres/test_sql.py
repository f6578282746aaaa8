from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from psycopg import Connection

import flowstone
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import load_sql

_SOURCE = Path(flowstone.__file__).parent
_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int2": (int,),
    "int4": (int,),
    "int8": (int,),
    "float8": (float,),
    "text": (str,),
    "name": (str,),
    "oban_job_state": (str,),
    "bytea": (bytes,),
    "timestamptz": (datetime,),
    "_text": (list,),
    "_int8": (list,),
    "_float8": (list,),
}
"""Which Python types may stand for a column; jsonb holds anything."""


def _reads() -> Iterator[tuple[str, str, ast.expr]]:
    """Yield module, statement and type of each `fetch_...(connection, type, statement, ...)` in the package."""
    for path in sorted(_SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(_SOURCE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("fetch_all", "fetch_one", "fetch_column", "fetch_value") and len(node.args) > 2:
                _, kind, statement, *_ = node.args
                if module.endswith(".postgres.sql"):
                    continue
                assert isinstance(statement, ast.Constant), f"{module}:{node.lineno}: the name must stand there"
                yield module, str(statement.value), kind


_READS = list(_reads())


def test_a_statement_is_loaded_by_name():
    assert load_sql("migrations/installed").startswith("-- ")


@pytest.mark.parametrize("name", ["migrations/nothing", "../database/create", "create", "/etc/passwd", ""])
def test_other_names_are_refused(name):
    with pytest.raises(LookupError):
        load_sql(name)


@pytest.fixture(scope="module")
def migrated(server) -> Iterator[Connection[Any]]:
    with server.database() as dsn, Database(dsn) as database, database.connection() as connection:
        yield connection


@pytest.mark.parametrize(
    ("module", "statement", "kind"),
    [pytest.param(*read, id=f"{read[1]}-{ast.unparse(read[2])}") for read in _READS],
)
def test_the_type_of_a_row_has_the_columns_of_its_statement(migrated, module, statement, kind):
    columns = _columns(migrated, statement)
    found = eval(ast.unparse(kind), vars(importlib.import_module(module)))
    if hasattr(found, "_fields"):
        assert list(columns) == list(found._fields)
        hints = get_type_hints(found)
    else:
        assert len(columns) == 1
        hints = dict.fromkeys(columns, found)
    for name, column in columns.items():
        if column not in ("json", "jsonb"):
            assert _plain(hints[name]) <= {*_TYPES[column]}, f"{name} is {column}, declared as {hints[name]}"


def _columns(connection: Connection[Any], statement: str) -> dict[str, str]:
    """Return the columns of a statement and their types, which the database tells without running it."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = re.sub(r"%%|%\((\w+)\)s", number, load_sql(statement))
    prepared = connection.pgconn.prepare(b"", text.encode())
    assert not prepared.error_message, prepared.error_message.decode()
    told = connection.pgconn.describe_prepared(b"")
    assert not told.error_message, told.error_message.decode()
    fields = [(str(told.fname(n) or b"", "utf-8"), told.ftype(n)) for n in range(told.nfields)]
    types = {
        row[0]: row[1]
        for row in connection.execute(
            "SELECT oid::bigint, typname FROM pg_type WHERE oid = ANY(%s)", [[oid for _, oid in fields]]
        )
    }
    assert len(dict(fields)) == len(fields), f"two columns of {statement} have one name: {fields}"
    return {name: types[oid] for name, oid in fields}


def _plain(hint: Any) -> set[Any]:
    """Return the types that a hint allows, without None and without what containers hold."""
    if get_origin(hint) in (Union, UnionType):
        return {one for part in get_args(hint) for one in _plain(part)} - {type(None)}
    return {get_origin(hint) or hint}
