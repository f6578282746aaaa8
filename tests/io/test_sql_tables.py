"""`TableIO` and `DuckDBTableIO`: the conformance suite of tables, and what each refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy
import psycopg
import pytest

from flowstone.core.output import OutputAddress, Publication
from flowstone.core.partitions import NO_PARTITION
from flowstone.errors import ConfigurationError
from flowstone.io import DuckDBTableIO, TableIO
from flowstone.io.sql_names import quoted
from flowstone.stores.postgres.database import Database
from flowstone.testing.table_conformance import TableConformance

pyarrow = pytest.importorskip("pyarrow")


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
        {"schema_changes": numpy.array(["widen", "refuse"])},
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


def test_a_table_that_another_database_publishes_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = DuckDBTableIO(tmp_path / "w.duckdb")
    address = OutputAddress("orders", NO_PARTITION, "run", 1, attempt=1, token=1)
    stored = manager.store(pyarrow.table({"n": [1]}), address)
    warned = []
    for issuer in ("one", "one", "memory-1", "one", "two", "one"):
        caplog.clear()
        assert manager.publish(Publication("orders", NO_PARTITION, 1, issuer, stored), None)
        warned.append([record.getMessage() for record in caplog.records])
    assert [len(messages) for messages in warned] == [0, 0, 0, 0, 1, 0]
    assert (
        "main.orders was published last from another database of FlowStone (one; this one is two)" in warned[4][0]
    )


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
