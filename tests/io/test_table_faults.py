"""What others see of tables when writers die, are late, or write at once; docs/tables.md lists these."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow
import pytest
from tests.io.tables_app import make

from flowstone import DailyPartitions, FlowStone, Settings, StaticPartitions, asset
from flowstone.app.worker import working
from flowstone.core.output import OutputAddress
from flowstone.core.partitions import PartitionKey
from flowstone.errors import RestoreRefusedError, StepFailedError, StorageError
from flowstone.io import DuckDBTableIO, TableIO
from flowstone.io.sql_names import Place
from flowstone.testing.marks import wait_until
from flowstone.testing.postgres import TemporaryServer

ROOT = Path(__file__).parents[2]
DAYS = DailyPartitions("2024-01-01", end="2024-01-08")


@pytest.fixture
def other(server: TemporaryServer) -> Iterator[str]:
    with server.empty_database() as dsn:
        yield dsn


def numbers(url: str, table: str = "orders", columns: str = "n") -> list[Any]:
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
            return []
        rows = connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1".encode()).fetchall()
        return [row[0] if len(row) == 1 else row for row in rows]


def killed(url: str, other: str, fault: str, number: int) -> None:
    """Run the app in a process that is killed."""
    environment = os.environ | {"NUMBER": str(number), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.io.tables_app", url, other, fault]
    assert subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("elsewhere", [False, True])
def test_killed_between_write_and_commit(database_url: str, other: str, elsewhere: bool) -> None:
    """Nothing is visible; the next run makes it; the sweep deletes what was left beside."""
    place = other if elsewhere else ""
    killed(database_url, place, "before the commit", 1)
    tables = place or database_url
    assert numbers(tables) == []
    with make(database_url, place or None) as flow:
        flow.materialize("orders")
        assert numbers(tables) == [1]
        with psycopg.connect(tables) as connection:
            assert connection.execute("SELECT count(*) FROM flowstone_tables.versions").fetchone() == (2,)
            flow.retention.sweep()
            assert connection.execute("SELECT count(*) FROM flowstone_tables.versions").fetchone() == (1,)
        assert flow.load("orders").equals(pyarrow.table({"n": [1]}))


def test_killed_between_commit_and_publishing_elsewhere(database_url: str, other: str) -> None:
    """It is committed, and visible as soon as another process catches up; what read it by version was right."""
    killed(database_url, other, "after the commit", 1)
    assert numbers(other) == []
    with make(database_url, other) as flow:
        assert flow.load("orders").to_pydict() == {"n": [1]}
        assert len(flow.parts.store.publications.pending()) == 1
        flow.retention.sweep()
        assert numbers(other) == [1]
        assert flow.parts.store.publications.pending() == []


def test_killed_while_the_commit_publishes(database_url: str) -> None:
    """In the app's own database one transaction is both: neither is there."""
    killed(database_url, "", "after the commit", 1)
    assert numbers(database_url) == []
    with make(database_url, None) as flow:
        assert not flow.exists("orders")
        flow.materialize("orders")
        assert numbers(database_url) == [1]


def test_a_lost_attempt_is_refused_and_changes_nothing(database_url: str) -> None:
    """A worker that was taken for dead commits late: its rows are never visible."""

    @asset(io="tables")
    def orders() -> Any:
        if not lost:
            lost.append(True)
            with psycopg.connect(database_url) as connection:  # what a rescue does: a newer attempt has the step
                connection.execute(
                    "UPDATE flowstone.steps SET token = nextval('flowstone.tokens') WHERE asset = 'orders'"
                )
        return pyarrow.table({"n": [1]})

    lost: list[bool] = []
    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone([orders], io={"tables": TableIO()}, settings=settings) as flow:
        with pytest.raises(Exception, match=r"superseded|lease|attempt"):
            flow.materialize("orders")
        assert numbers(database_url) == []


def test_readers_see_one_version_or_the_other(database_url: str) -> None:
    """A reader that polls during 15 replacements always finds 1,000 rows of one version (dagster#14091)."""
    versions = iter(range(100))

    @asset(io="tables")
    def orders() -> Any:
        return pyarrow.table({"version": [next(versions)] * 1000})

    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def read() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not stop.is_set():
                text = "SELECT count(*), count(DISTINCT version) FROM orders"
                seen.append(connection.execute(text).fetchone())  # type: ignore[arg-type]

    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone([orders], io={"tables": TableIO(history=False)}, settings=settings) as flow:
        flow.materialize("orders")
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for _ in range(15):
                flow.materialize("orders", force=True)
        finally:
            stop.set()
            reader.join()
    assert len(seen) > 15
    assert set(seen) == {(1000, 1)}


def test_a_worker_writes_partitions_at_once(database_url: str, tmp_path: Path) -> None:
    """Through Oban, in the app's database and in DuckDB, whose assets get a limit of one by themselves.

    dagster#18746, #26848, #16248, #19068: locks failed backfills; dagster#21278: rows were there twice.
    """

    @asset(io="tables", partitions=DAYS)
    def orders(context: Any) -> Any:
        return pyarrow.table({"day": [context.partition.day] * 3})

    @asset(io="duckdb", partitions=DAYS)
    def copies(orders: Any) -> Any:
        return orders

    managers = {"tables": TableIO(), "duckdb": DuckDBTableIO(tmp_path / "w.duckdb")}
    settings = Settings(database_url=database_url, executor="oban")
    with FlowStone([orders, copies], io=managers, settings=settings) as flow:
        assert dict(flow.graph["copies"].concurrency) == {"duckdb w.duckdb": 1}
        assert not flow.graph["orders"].concurrency
        with working(flow):
            result = flow.backfill("+copies")
        assert result.ok, result
        assert wait_until(lambda: not flow.parts.store.publications.pending())
        expected = sorted((day, date(2024, 1, day)) for day in range(1, 9) for _ in range(3))
        assert numbers(database_url, columns="day, flowstone_partition") == expected
        with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as connection:
            assert connection.execute("FROM copies ORDER BY day").fetchall() == expected


def test_restore_undo_invalidate_and_erase_are_published(database_url: str) -> None:
    made = iter(range(1, 100))

    @asset(io="tables", partitions=StaticPartitions(["eu", "us"]))
    def orders() -> Any:
        return pyarrow.table({"n": [next(made)]})

    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone([orders], io={"tables": TableIO()}, settings=settings) as flow:
        first = flow.materialize("orders", partition="eu")
        flow.materialize("orders", partition="us")
        third = flow.materialize("orders", partition="eu", force=True)
        assert numbers(database_url) == [2, 3]
        flow.versions.restore("orders", version=first)
        assert numbers(database_url) == [1, 2]
        assert flow.load("orders", partition="eu", version=third).to_pydict() == {"n": [3]}
        flow.versions.restore("orders", version=third)
        flow.versions.undo(third.run_id)
        assert numbers(database_url) == [1, 2]
        flow.invalidate("orders", partitions=["us"])
        assert numbers(database_url) == [1]
        flow.versions.erase("orders", partition="eu")
        assert numbers(database_url) == []
        assert numbers(database_url, "flowstone_tables.versions", "count(*)") == [1]


def test_without_history_a_restore_is_refused_and_what_is_there_stays(database_url: str) -> None:
    made = iter(range(1, 100))

    @asset(io="tables")
    def orders() -> Any:
        return pyarrow.table({"n": [next(made)]})

    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone([orders], io={"tables": TableIO(history=False)}, settings=settings) as flow:
        first = flow.materialize("orders")
        flow.materialize("orders", force=True)
        with pytest.raises(RestoreRefusedError, match="not stored any more"):
            flow.versions.restore("orders", version=first)
        assert numbers(database_url) == [2]


def test_a_constraint_of_the_readers_fails_the_step_and_keeps_the_table(database_url: str) -> None:
    made = iter([[1], [2, 2], [3]])

    @asset(io="tables")
    def orders() -> Any:
        return pyarrow.table({"n": next(made)})

    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone([orders], io={"tables": TableIO()}, settings=settings) as flow:
        flow.materialize("orders")
        with psycopg.connect(database_url) as connection:
            connection.execute("ALTER TABLE orders ADD UNIQUE (n)")
        with pytest.raises(StepFailedError, match="orders_n_key"):
            flow.materialize("orders", force=True)
        assert numbers(database_url) == [1]
        flow.materialize("orders", force=True)
        assert numbers(database_url) == [3]


def test_a_table_that_is_there_already_is_left_alone(database_url: str) -> None:
    @asset(io="tables")
    def orders() -> Any:
        return pyarrow.table({"n": [1]})

    @asset(io="tables")
    def other() -> Any:
        return pyarrow.table({"n": [2]})

    settings = Settings(database_url=database_url, executor="sync")
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE public.orders (n int)")
        connection.execute("INSERT INTO public.orders VALUES (7)")
    with FlowStone([orders, other], io={"tables": TableIO(tables={"other": "t"})}, settings=settings) as flow:
        with pytest.raises(Exception, match="FlowStone did not make it"):
            flow.materialize("orders")
        flow.materialize("other")
        assert numbers(database_url) == [7]
    with (
        FlowStone([orders], io={"tables": TableIO(tables={"orders": "t"})}, settings=settings) as flow,
        pytest.raises(Exception, match="written by 'default/other'"),
    ):
        flow.materialize("orders")


def test_rows_that_were_changed_by_hand_are_no_wrong_value(database_url: str) -> None:
    @asset(io="tables")
    def orders() -> Any:
        return pyarrow.table({"n": [1, 2, 3]})

    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone([orders], io={"tables": TableIO()}, settings=settings) as flow:
        flow.materialize("orders")
        beside = Place("public", "orders").beside
        with psycopg.connect(database_url) as connection:
            connection.execute(f"DELETE FROM {beside} WHERE n = 2".encode())
        with pytest.raises(StorageError, match="holds 2 of its 3 rows"):
            flow.load("orders")


def test_a_file_that_another_process_has_open(tmp_path: Path) -> None:
    """Waits for it, or says so (dagster#18746); nothing is half-written."""
    path = tmp_path / "w.duckdb"
    program = f"import duckdb; held = duckdb.connect({str(path)!r}); print('open', flush=True); input()"
    command = [sys.executable, "-c", program]
    address = OutputAddress("orders", PartitionKey(""), "run", 1, 1, 1)
    value = pyarrow.table({"n": [1]})
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StorageError, match="close it there"):
            DuckDBTableIO(path, wait_seconds=0.1).store(value, address)
        threading.Timer(0.3, other.stdin.close).start()
        patient = DuckDBTableIO(path, wait_seconds=60)
        assert patient.load(patient.store(value, address)).equals(value)


def test_another_database_that_is_away_is_caught_up_with(database_url: str, other: str) -> None:
    """The commit stands, the warning says what is not visible yet, and the next commit publishes both."""

    class AwayIO(TableIO):
        away = False

        def publish(self, publication: Any, connection: object | None) -> bool:
            if AwayIO.away:
                raise ConnectionError("the warehouse is being upgraded")
            return super().publish(publication, connection)

    @asset(io="tables", partitions=StaticPartitions(["eu", "us"]))
    def orders() -> Any:
        return pyarrow.table({"n": [1]})

    settings = Settings(database_url=database_url, executor="sync")
    with FlowStone([orders], io={"tables": AwayIO(other)}, settings=settings) as flow:
        AwayIO.away = True
        flow.materialize("orders", partition="eu")
        (noted,) = flow.parts.store.publications.pending()
        assert noted.partition_key == PartitionKey("s:eu")
        (seen,) = flow.insights.unpublished()
        assert (seen.asset, seen.partition, seen.io, seen.in_use) == ("orders", "eu", "tables", True)
        assert flow.insights.target("orders", "eu").unpublished == seen
        assert flow.insights.target("orders", "us").unpublished is None
        assert "do not see what is in use yet" in str(seen)
        assert flow.retention.publish() == 0
        AwayIO.away = False
        flow.materialize("orders", partition="us")
        assert numbers(other, columns="flowstone_partition") == ["eu", "us"]
        assert flow.insights.unpublished() == ()
        assert flow.insights.target("orders", "eu").unpublished is None
