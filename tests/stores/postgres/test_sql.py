from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, NewType, TypeAliasType, Union, get_args, get_origin, get_type_hints

import pytest
from psycopg import Connection

import flowstone
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.sql import load_sql, sections
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.sql import _maker

_SOURCE = Path(flowstone.__file__).parent
_TYPES: dict[str, set[type]] = {
    "bool": {bool},
    "int2": {int},
    "int4": {int},
    "int8": {int},
    "float8": {float},
    "text": {str},
    "name": {str},
    "oban_job_state": {str},
    "bytea": {bytes},
    "timestamptz": {datetime},
    "_text": {list},
    "_int4": {list},
    "_int8": {list},
    "_float8": {list},
}
"""Which Python types may stand for a column; jsonb holds anything."""


def _reads() -> Iterator[tuple[str, str, ast.expr]]:
    """Yield module, statement and type of each `fetch_...(connection, type, statement, ...)` in the package."""
    for path in sorted(_SOURCE.rglob("*.py")):
        module = ".".join(path.relative_to(_SOURCE.parent).with_suffix("").parts)
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if "fetch_" in source else ():
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
    assert load_sql("database/installed").startswith("-- ")


@pytest.mark.parametrize("name", ["migrations/nothing", "../database/create", "create", "/etc/passwd", ""])
def test_other_names_are_refused(name):
    with pytest.raises(LookupError):
        load_sql(name)


def test_what_statements_have_in_common_stands_in_each_of_them():
    condition = "r.requested_by <> ALL(%(not_people)s)"
    assert [load_sql(f"runs/{name}").count(condition) for name in ("page", "count")] == [1, 1]
    assert "matching" not in sections("runs"), "a part is no statement"
    with pytest.raises(LookupError):
        load_sql("runs/matching")


def test_a_part_that_is_not_there_is_named(tmp_path, monkeypatch):
    (tmp_path / "parted" / "sql").mkdir(parents=True)
    (tmp_path / "parted" / "sql" / "all.sql").write_text("-- name: one\n-- Text.\nSELECT\n-- here: all/gone\n;\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LookupError, match="no part 'gone'"):
        load_sql("all/one", "parted")


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
    if is_dataclass(found):
        required = {one.name for one in fields(found) if one.default is one.default_factory is MISSING}
        assert required <= set(columns) <= {one.name for one in fields(found)}
        hints = get_type_hints(found)
    elif hasattr(found, "_fields"):
        assert list(columns) == list(found._fields)
        hints = get_type_hints(found)
    else:
        assert len(columns) == 1
        hints = dict.fromkeys(columns, found)
    for name, column in columns.items():
        if column not in ("json", "jsonb"):
            assert _plain(hints[name]) <= _TYPES[column], f"{name} is {column}, declared as {hints[name]}"


def _columns(connection: Connection[Any], statement: str) -> dict[str, str]:
    """Return the columns of a statement and their types, which the database knows without running it."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = re.sub(r"%%|%\((\w+)\)[sb]", number, load_sql(statement))
    prepared = connection.pgconn.prepare(b"", text.encode())
    assert not prepared.error_message, prepared.error_message.decode()
    reported = connection.pgconn.describe_prepared(b"")
    assert not reported.error_message, reported.error_message.decode()
    found = [(str(reported.fname(n) or b"", "utf-8"), reported.ftype(n)) for n in range(reported.nfields)]
    types = {
        row[0]: row[1]
        for row in connection.execute(
            "SELECT oid::bigint, typname FROM pg_type WHERE oid = ANY(%s)", [[oid for _, oid in found]]
        )
    }
    assert len(dict(found)) == len(found), f"two columns of {statement} have one name: {found}"
    return {name: types[oid] for name, oid in found}


def _plain(hint: Any) -> set[Any]:
    """Return the types that a hint allows, without None, what containers hold, and what rows are turned into."""
    if get_origin(hint) in (Union, UnionType):
        return {one for part in get_args(hint) for one in _plain(part)} - {type(None)}
    if isinstance(hint, TypeAliasType):
        return _plain(hint.__value__)
    if isinstance(hint, NewType):
        return _plain(hint.__supertype__)
    if get_origin(hint) is Literal:
        return {type(one) for one in get_args(hint)}
    plain = get_origin(hint) or hint
    if isinstance(plain, type) and issubclass(plain, StrEnum):
        return {str}
    return {list if plain is tuple else plain}


class Plain(NamedTuple):
    number: int
    text: str | None = None


@dataclass(slots=True)
class Placed:
    number: int
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rich:
    state: State
    earlier: State | None
    stored: StoredOutput | None
    assets: tuple[str, ...]


def test_columns_are_matched_with_fields_by_name():
    assert _maker(Plain, (b"number", b"text"))((1, "a")) == Plain(1, "a")
    assert _maker(Plain, (b"text", b"number"))(("a", 1)) == Plain(1, "a")
    assert _maker(Plain, (b"number",))((1,)) == Plain(1)
    with pytest.raises(TypeError, match="no field for the columns surprise"):
        _maker(Plain, (b"number", b"surprise"))


def test_dataclasses_are_made_by_position_where_columns_have_the_order_of_the_fields():
    assert _maker(Placed, (b"number", b"text"))((1, "a")) == Placed(1, "a")
    assert _maker(Placed, (b"number",))((1,)) == Placed(1)
    assert _maker(Placed, (b"text", b"number"))(("a", 1)) == Placed(1, "a")


def test_values_become_what_fields_are_annotated_with():
    make = _maker(Rich, (b"state", b"earlier", b"stored", b"assets"))
    found = make(("running", "failed", {"io": "filesystem", "location": "a"}, ["a", "b"]))
    stored = StoredOutput("filesystem", "a")
    assert found == Rich(state=State.RUNNING, earlier=State.FAILED, stored=stored, assets=("a", "b"))
    assert found.state is State.RUNNING
    nothing = Rich(state=State.COMPLETED, earlier=None, stored=None, assets=())
    assert make(("completed", None, None, None)) == nothing
