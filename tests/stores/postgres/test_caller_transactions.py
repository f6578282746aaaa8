"""Runs that are placed inside a transaction of the caller's: they exist exactly if it commits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest
from psycopg.rows import dict_row

from flowstone import FlowStone, asset
from flowstone.app.results import RunHandle
from flowstone.config import Settings
from flowstone.core.partitions_by_time import DailyPartitions
from flowstone.core.project import Project
from flowstone.core.state import State
from flowstone.errors import DatabaseError, OptionsError, RunConflictError, RunNotFoundError, WaitTimeoutError
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

days = DailyPartitions(date(2015, 1, 1), end=date(2024, 1, 1))


@asset
def orders() -> int:
    return 1


@asset
def report(orders: int) -> int:
    return orders + 1


@asset(partitions=days)
def daily() -> int:
    return 1


@asset(config=dict)
def configured(context: Any) -> int:
    return 1


@pytest.fixture
def flow(database_url: str, tmp_path: Path) -> Iterator[FlowStone]:
    settings = Settings(database_url=database_url, storage=str(tmp_path))
    with FlowStone([orders, report, daily, configured], settings=settings) as app:
        yield app


def listed(flow: FlowStone) -> list[str]:
    return [run.id for run in flow.runs.latest()]


def queued(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM public.oban_jobs").fetchone()
    assert row is not None
    return int(row[0])


def place_all(flow: FlowStone, connection: object) -> list[str]:
    """Place with each verb; a large backfill is a range."""
    job = flow.schedule("orders", connection=connection, scheduled_at=datetime(2100, 1, 1, tzinfo=UTC))
    whole = flow.materialize_all("report", wait=False, connection=connection, tags=["mine"])
    large = flow.backfill("daily", wait=False, connection=connection)
    assert isinstance(whole, RunHandle)
    assert whole.state is State.NOT_FOUND
    return [job.run_id, whole.id, large.id]


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_run_exists_exactly_if_the_transaction_commits(
    flow: FlowStone, database_url: str, autocommit: bool
) -> None:
    with psycopg.connect(database_url, autocommit=autocommit) as connection:
        connection.execute("CREATE TABLE mine (id int)")
        with connection.transaction():
            connection.execute("INSERT INTO mine VALUES (1)")
            place_all(flow, connection)
            assert listed(flow) == []
            raise psycopg.Rollback
        assert listed(flow) == []
        assert queued(database_url) == 0

        with connection.transaction():
            connection.execute("INSERT INTO mine VALUES (2)")
            placed = place_all(flow, connection)
        connection.commit()

        assert sorted(listed(flow)) == sorted(placed)
        assert queued(database_url) == 1
        assert [run.id for run in flow.runs.latest(tag="mine")] == [placed[1]]
        assert flow.runs.get(placed[2]).total == len(list(days.keys(datetime.now(UTC))))
        assert connection.execute("SELECT id FROM mine").fetchall() == [(2,)]


def test_workers_are_notified_with_the_commit(flow: FlowStone, database_url: str) -> None:
    with Database(database_url).listen(["public.oban_insert"]) as listener, psycopg.connect(database_url) as mine:
        flow.schedule("orders", connection=mine)
        assert listener.wait(0.2) == []
        mine.commit()
        assert "assets" in str(listener.wait(10))


def test_what_is_the_callers_is_left_alone(flow: FlowStone, database_url: str) -> None:
    with psycopg.connect(
        database_url, row_factory=dict_row, cursor_factory=psycopg.ClientCursor, prepare_threshold=0
    ) as connection:
        connection.execute("CREATE SCHEMA other")
        connection.execute("CREATE TABLE other.steps (id int)")
        connection.execute("SET search_path = other")
        connection.execute("SET timezone = 'Asia/Tokyo'")
        connection.adapters.register_loader("int8", psycopg.types.string.TextLoader)
        connection.adapters.register_loader("jsonb", psycopg.types.string.TextLoader)
        named = psycopg.ServerCursor(connection, "mine")
        named.execute("SELECT generate_series(1, 5) AS n")
        assert named.fetchone() == {"n": 1}
        before = connection.execute("SELECT count(*) AS n FROM pg_prepared_statements").fetchone()

        place_all(flow, connection)

        assert named.fetchone() == {"n": 2}
        assert connection.execute("SHOW search_path").fetchone() == {"search_path": "other"}
        assert connection.execute("SHOW timezone").fetchone() == {"TimeZone": "Asia/Tokyo"}
        assert connection.execute("SELECT count(*) AS n FROM pg_prepared_statements").fetchone() == before
        assert connection.info.transaction_status.name == "INTRANS"
        connection.commit()
    assert len(listed(flow)) == 3


def test_a_refusal_leaves_the_transaction_as_it_was(flow: FlowStone, database_url: str) -> None:
    under_way = flow.schedule("configured", config={"a": 1})
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE mine (id int)")
        with pytest.raises(RunConflictError) as caught:
            flow.schedule("configured", config={"a": 2}, connection=connection)
        assert caught.value.run_id == under_way.run_id
        assert flow.schedule("configured", config={"a": 1}, connection=connection).deduplicated
        connection.commit()
        assert connection.execute("SELECT to_regclass('mine')::text").fetchone() == ("mine",)


def test_the_same_twice_in_one_transaction_is_one_job(flow: FlowStone, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        first = flow.schedule("orders", connection=connection)
        again = flow.schedule("orders", connection=connection)
        connection.commit()

    assert (again.id, again.deduplicated) == (first.id, True)
    assert queued(database_url) == 1


@contextmanager
def closed(url: str) -> Iterator[object]:
    connection = psycopg.connect(url)
    connection.close()
    yield connection


@contextmanager
def autocommit(url: str) -> Iterator[object]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def failed(url: str) -> Iterator[object]:
    with psycopg.connect(url) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        yield connection


@contextmanager
def read_only(url: str) -> Iterator[object]:
    with psycopg.connect(url) as connection:
        connection.read_only = True
        yield connection


@contextmanager
def elsewhere(url: str) -> Iterator[object]:
    with psycopg.connect(url, dbname="postgres") as connection:
        yield connection


@contextmanager
def cursor(url: str) -> Iterator[object]:
    with psycopg.connect(url) as connection, connection.cursor() as mine:
        yield mine


@contextmanager
def awaited(url: str) -> Iterator[object]:
    connection = asyncio.run(psycopg.AsyncConnection.connect(url))
    try:
        yield connection
    finally:
        connection.pgconn.finish()


@contextmanager
def pool(url: str) -> Iterator[object]:
    with psycopg_pool.ConnectionPool(url, min_size=1, open=True) as found:
        yield found


@contextmanager
def address(url: str) -> Iterator[object]:
    yield url


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (closed, "it is closed"),
        (autocommit, "autocommit mode and no transaction is open"),
        (failed, "its transaction has failed"),
        (read_only, "read-only"),
        (elsewhere, "leads to another database"),
        (cursor, "is a cursor; its connection is cursor.connection"),
        (awaited, r"await flow.aio.schedule\("),
        (pool, "hands connections out and is none itself"),
        (address, "is no connection"),
    ],
)
def test_what_cannot_work_is_refused(
    flow: FlowStone, database_url: str, make: Callable[[str], Any], match: str
) -> None:
    with make(database_url) as connection, pytest.raises(OptionsError, match=match):
        flow.schedule("orders", connection=connection)

    assert listed(flow) == []


def test_the_options_that_a_transaction_needs(flow: FlowStone, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        with pytest.raises(OptionsError, match="wait=False"):
            flow.backfill("orders", connection=connection)
        with pytest.raises(OptionsError, match="'sync' runs steps in this process"):
            flow.schedule("orders", connection=connection, executor="sync")
    with pytest.raises(OptionsError, match="'async' runs steps in this process"):
        flow.materialize_all("orders", wait=False, executor="async")
    with pytest.raises(OptionsError, match="'sync' runs steps in this process"):
        FlowStone.for_testing([orders]).backfill("orders", wait=False)


def test_awaited_connections(flow: FlowStone, database_url: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database_url, row_factory=dict_row) as connection:
            async with connection.transaction():
                await flow.aio.schedule("orders", connection=connection)
                raise psycopg.Rollback
            assert listed(flow) == []
            async with connection.transaction():
                job = await flow.aio.schedule("orders", connection=connection)
                large = await flow.aio.backfill("daily", wait=False, connection=connection)
                assert listed(flow) == []
            assert sorted(listed(flow)) == sorted([job.run_id, large.id])

    asyncio.run(main())


def test_an_awaited_verb_that_is_cancelled_does_nothing_more(flow: FlowStone, database_url: str) -> None:
    async def main() -> None:
        holder = await psycopg.AsyncConnection.connect(database_url)
        connection = await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        async with holder, connection:
            await flow.aio.schedule("orders", connection=holder)  # holds the place in the index
            async with connection.transaction():
                task = asyncio.create_task(flow.aio.schedule("orders", connection=connection))
                await asyncio.sleep(0.3)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(task, 20)
                assert connection.info.transaction_status.name == "INTRANS"
                await connection.execute("CREATE TABLE goes_on (id int)")
            assert listed(flow) == []
            await holder.rollback()
        assert listed(flow) == []

    asyncio.run(main())


def alchemy_url(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def test_sqlalchemy(flow: FlowStone, database_url: str) -> None:
    alchemy = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    engine = alchemy.create_engine(alchemy_url(database_url))
    with engine.connect() as connection:
        flow.schedule("orders", connection=connection)
        connection.rollback()
        assert listed(flow) == []
        first = flow.schedule("orders", connection=connection)
        connection.commit()
    with orm.Session(engine) as session:
        flow.materialize_all("report", wait=False, connection=session)
        session.rollback()
        assert listed(flow) == [first.run_id]
        second = flow.materialize_all("report", wait=False, connection=session)
        session.commit()
    assert listed(flow) == [second.id, first.run_id]
    with engine.begin() as connection, pytest.raises(OptionsError, match="hands connections out"):
        flow.schedule("orders", connection=engine)
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(OptionsError, match="autocommit"),
    ):
        flow.schedule("orders", connection=connection)
    with engine.connect() as connection:
        connection.close()
        with pytest.raises(OptionsError, match="closed"):
            flow.schedule("orders", connection=connection)
    engine.dispose()
    sqlite = alchemy.create_engine("sqlite://")
    with sqlite.connect() as connection, pytest.raises(OptionsError, match="its driver is 'sqlite3'"):
        flow.schedule("orders", connection=connection)
    sqlite.dispose()


def test_awaited_sqlalchemy(flow: FlowStone, database_url: str) -> None:
    aio = pytest.importorskip("sqlalchemy.ext.asyncio")

    async def main() -> None:
        engine = aio.create_async_engine(alchemy_url(database_url))
        async with aio.AsyncSession(engine) as session:
            await flow.aio.schedule("orders", connection=session)
            await session.rollback()
            assert listed(flow) == []
            await flow.aio.schedule("orders", connection=session)
            await session.commit()
        async with engine.begin() as connection:
            await flow.aio.schedule("report", connection=connection)
            assert len(listed(flow)) == 1
            with pytest.raises(OptionsError, match=r"await flow\.aio"):
                flow.schedule("report", connection=connection)
        assert len(listed(flow)) == 2
        await engine.dispose()

    asyncio.run(main())


def test_handles_of_runs(flow: FlowStone) -> None:
    handle = flow.materialize_all("report", wait=False)

    assert handle.state is State.RUNNING
    assert handle.progress().total == 2
    with pytest.raises(WaitTimeoutError, match=handle.id):
        handle.wait(0.1)
    done: list[Any] = []
    waiting = threading.Thread(target=lambda: done.append(flow.runs.wait(handle.id, timeout_seconds=30)))
    waiting.start()
    assert handle.cancel() is State.CANCELLED
    waiting.join(30)
    assert done[0].state is State.CANCELLED
    assert handle.refresh().state is State.CANCELLED
    assert flow.runs.retry(handle, wait=False).progress().total == 2
    with pytest.raises(RunNotFoundError):
        flow.runs.wait("nowhere")
    with pytest.raises(OptionsError, match="timeout_seconds"):
        flow.runs.wait(handle, timeout_seconds=-1)


def test_the_transaction_of_a_project(database_url: str, tmp_path: Path) -> None:
    with Database(database_url, project=Project("shop")) as database:
        upgrade(database)
    settings = Settings(database_url=database_url, project="shop", storage=str(tmp_path))
    plain = Settings(database_url=database_url, storage=str(tmp_path))
    with FlowStone([orders], settings=settings) as shop, FlowStone([orders], settings=plain) as other:
        with psycopg.connect(database_url) as connection:
            job = shop.schedule("orders", connection=connection)
            connection.commit()
        assert listed(shop) == [job.run_id]
        assert listed(other) == []


def test_a_snapshot_that_is_too_old_is_reported(flow: FlowStone, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT 1")
        flow.schedule("orders")
        with pytest.raises(DatabaseError, match="READ COMMITTED"):
            flow.schedule("orders", connection=connection)
        assert connection.info.transaction_status.name == "INTRANS"


def test_free_configs_come_back_exactly(flow: FlowStone, database_url: str) -> None:
    given = {"zz": 1e22, "a": [1.0, -0.5, 10**20], "b": {"y": None, "x": "ü\u2028"}}
    run = flow.materialize("configured", config=given, executor="sync")
    found = flow.parts.store.catalog.run_details(run.run_id).config["configured"]

    assert repr(found) == repr(given)
