"""`TableIO` and `DuckDBTableIO`: the conformance suite of tables, and what each refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from flowstone.errors import ConfigurationError
from flowstone.io import DuckDBTableIO, TableIO
from flowstone.io.sql_names import quoted
from flowstone.stores.postgres.database import Database
from flowstone.testing.table_conformance import TableConformance

pytest.importorskip("pyarrow")


class _InPostgres(TableConformance):
    url: str

    def visible(self, asset: str, order: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(
                f"SELECT * FROM public.{quoted(asset)} ORDER BY {quoted(order)}".encode()
            ).fetchall()


class TestOwnDatabase(_InPostgres):
    """Visible with the transaction that commits."""

    @pytest.fixture(autouse=True)
    def _database(self, empty_database_url: str) -> Iterator[None]:
        self.url = empty_database_url
        with Database(empty_database_url) as self.database:
            yield

    def create(self, **options: Any) -> Any:
        return TableIO(**options).in_database(self.database.connection)

    @contextmanager
    def connection(self) -> Iterator[object]:
        with self.database.transaction() as connection:
            yield connection


class TestOtherDatabase(_InPostgres):
    """Visible right after the commit."""

    @pytest.fixture(autouse=True)
    def _database(self, empty_database_url: str) -> None:
        self.url = empty_database_url

    def create(self, **options: Any) -> Any:
        return TableIO(self.url, **options)


class TestDuckDB(TableConformance):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self.path = tmp_path / "warehouse.duckdb"

    def create(self, **options: Any) -> Any:
        return DuckDBTableIO(self.path, **options)

    def visible(self, asset: str, order: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.path) as connection:
            return connection.execute(f"SELECT * FROM {quoted(asset)} ORDER BY {quoted(order)}").fetchall()


@pytest.mark.parametrize(
    "options",
    [
        {"schema": ""},
        {"schema": "x" * 64},
        {"schema": None},
        {"schema": "flowstone_tables"},
        {"tables": ["orders"]},
        {"tables": {"orders": ""}},
        {"tables": {"a": "t", "b": "t"}},
        {"partition_column": "a\x00b"},
        {"history": "no"},
        {"schema_changes": "ignore"},
        {"name": ""},
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="TableIO"):
        TableIO(**options)
    with pytest.raises(ConfigurationError, match="DuckDBTableIO"):
        DuckDBTableIO("x.duckdb", **options)


def test_catalogs_of_data_know_tables_by_their_names(empty_database_url: str, tmp_path: Path) -> None:
    name = psycopg.conninfo.conninfo_to_dict(empty_database_url)["dbname"]
    server, table = TableIO(empty_database_url, schema="mart", tables={"orders": "fact"}).dataset("orders")
    assert server.startswith("postgres://")
    assert table == f"{name}.mart.fact"
    assert DuckDBTableIO(tmp_path / "w.duckdb").dataset("a b") == (f"duckdb://{tmp_path}/w.duckdb", "w.main.a b")


def test_places_that_cannot_work_are_refused() -> None:
    for path in (":memory:", "", "md:x", 7, None):
        with pytest.raises(ConfigurationError, match="path of a file"):
            DuckDBTableIO(path)  # type: ignore[arg-type]
    for url in ("", 7):
        with pytest.raises(ConfigurationError, match="url"):
            TableIO(url)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="wait_seconds"):
        DuckDBTableIO("x.duckdb", wait_seconds=-1)
    with pytest.raises(ConfigurationError, match="which has none"):
        TableIO().in_database(None)
