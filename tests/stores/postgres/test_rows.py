"""Rows by name: columns become fields, and values what fields are annotated with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import fetch_row, fetch_rows, fetch_value, fetch_values


class Plain(NamedTuple):
    number: int
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rich:
    state: State
    earlier: State | None
    stored: StoredOutput | None
    assets: tuple[str, ...]


def test_columns_are_matched_by_name_whatever_their_order(database: Database) -> None:
    with database.connection() as connection:
        assert fetch_row(connection, Plain, "SELECT 1 AS number, 'a' AS text") == Plain(1, "a")
        assert fetch_row(connection, Plain, "SELECT 'a' AS text, 1 AS number") == Plain(1, "a")
        assert fetch_rows(connection, Plain, "SELECT n AS number FROM generate_series(1, 2) AS n") == [
            Plain(1),
            Plain(2),
        ]
        assert fetch_row(connection, Plain, "SELECT 1 AS number WHERE false") is None


def test_values_become_what_the_fields_are_annotated_with(database: Database) -> None:
    stored = StoredOutput("filesystem", "a/b.json")
    statement = """
        SELECT 'running' AS state, 'failed' AS earlier,
            jsonb_build_object('io', 'filesystem', 'location', 'a/b.json') AS stored, ARRAY['a', 'b'] AS assets
        UNION ALL SELECT 'completed', NULL, NULL, NULL
    """
    with database.connection() as connection:
        first, second = fetch_rows(connection, Rich, statement)
    assert first == Rich(state=State.RUNNING, earlier=State.FAILED, stored=stored, assets=("a", "b"))
    assert first.state is State.RUNNING
    assert second == Rich(state=State.COMPLETED, earlier=None, stored=None, assets=())


def test_a_column_without_a_field_is_named(database: Database) -> None:
    with database.connection() as connection, pytest.raises(TypeError, match="no field for the columns surprise"):
        fetch_rows(connection, Plain, "SELECT 1 AS number, 2 AS surprise")


def test_values_of_one_column(database: Database) -> None:
    with database.connection() as connection:
        assert fetch_values(connection, int, "SELECT generate_series(1, 3)") == [1, 2, 3]
        assert fetch_value(connection, bool, "SELECT true") is True
        assert fetch_value(connection, bool, "SELECT true WHERE false") is None
        with pytest.raises(ValueError, match="too many values"):
            fetch_values(connection, int, "SELECT 1, 2")
