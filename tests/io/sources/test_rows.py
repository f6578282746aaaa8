"""New rows, in SQLite and in PostgreSQL, and the text of statements in every style of parameters."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from flowstone.core.automation.record import PartitionChange
from flowstone.core.automation.sensor import Sensed, Sensor, SensorContext, sense
from flowstone.errors import DefinitionError, ResourceError, SensorError
from flowstone.io.sources import watermark
from flowstone.io.sources.rows import Dialect, Source, Statement, new_rows
from flowstone.io.sources.watermark import Watermark

SOURCE = Source(("at", "id", "100%"), table=("my", "t"))


@pytest.mark.parametrize(
    ("style", "where", "parameters"),
    [
        ("qmark", '"at" > ? OR ("at" = ? AND "id" > ?)', [7, 7, "a"]),
        ("numeric", '"at" > :1 OR ("at" = :2 AND "id" > :3)', [7, 7, "a"]),
        ("named", '"at" > :p1 OR ("at" = :p2 AND "id" > :p3)', {"p1": 7, "p2": 7, "p3": "a"}),
        ("format", '"at" > %s OR ("at" = %s AND "id" > %s)', [7, 7, "a"]),
        ("pyformat", '"at" > %(p1)s OR ("at" = %(p2)s AND "id" > %(p3)s)', {"p1": 7, "p2": 7, "p3": "a"}),
    ],
)
def test_values_are_bound(style: str, where: str, parameters: object) -> None:
    made = Statement.after(SOURCE, Watermark(7, "a", None), limit=3, style=style)
    column = '"100%%"' if "format" in style else '"100%"'
    expected = f'SELECT "at", "id", {column} FROM "my"."t" WHERE {where} ORDER BY "at", "id" LIMIT 3'
    assert (made.text, made.parameters) == (expected, parameters)


def test_the_first_look_and_one_that_remembers() -> None:
    first = Statement.after(SOURCE, None, limit=3, style="qmark")
    assert ' WHERE "at" IS NOT NULL ORDER' in first.text
    again = Statement.after(SOURCE, Watermark(7, "a", frozenset()), limit=3, style="qmark")
    assert ' WHERE "at" >= ? ORDER' in again.text
    assert again.parameters == [7]


def test_names_cannot_break_out_of_their_quotes() -> None:
    evil = Source(('a"; DROP TABLE x; --', "b`"), table=("t",))
    assert '"a""; DROP TABLE x; --"' in Statement.after(evil, None, limit=1, style="qmark").text
    backquoted = Source(("a", "b`"), table=("t",), quote="`")
    assert "SELECT `a`, `b``` FROM `t`" in Statement.after(backquoted, None, limit=1, style="qmark").text


NOW = datetime(2024, 1, 1, tzinfo=UTC)


def poll(sensor: Sensor, cursor: str | None = None, *, now: datetime = NOW, **resources: Any) -> Sensed:
    context = SensorContext(sensor.name, now=now, cursor=cursor, selection="report", resources=resources)
    return sense(context, sensor(context))


def watch(table: Any = "sales", **options: Any) -> Sensor:
    options = {"watermark": "at", "key": "id", "partition": lambda row: row["id"]} | options
    return new_rows(table, name="sales", selection="report", **options)


def keys(sensed: Sensed) -> list[object]:
    return [request.partition for request in sensed.requests]


class Shop:
    """A SQLite database with sales."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.execute("CREATE TABLE sales (id INTEGER PRIMARY KEY, at INTEGER, region TEXT)")

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)

    def execute(self, statement: str, *values: object) -> None:
        with closing(self.connect()) as connection:
            connection.execute(statement, values)
            connection.commit()

    def sell(self, *rows: tuple[int, int | None, str]) -> None:
        for row in rows:
            self.execute("INSERT INTO sales VALUES (?, ?, ?)", *row)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "shop.db")


def test_rows_are_found_once_in_the_order_of_their_watermark(shop: Shop) -> None:
    sensor = watch(database=shop.connect)
    assert poll(sensor).skip_reason == "nothing new"
    shop.sell((1, 20, "eu"), (2, 10, "us"), (3, None, "eu"))
    first = poll(sensor)
    assert [(one.partition, one.run_key) for one in first.requests] == [(2, "i:10 i:2"), (1, "i:20 i:1")]
    shop.sell((4, 30, "eu"))
    second = poll(sensor, first.cursor)
    assert keys(second) == [4]
    assert poll(sensor, second.cursor).requests == ()


def test_late_rows_with_the_same_watermark_are_not_lost_whatever_their_key(shop: Shop) -> None:
    shop.sell((5, 10, "eu"))
    sensor = watch(database=shop.connect)
    first = poll(sensor)
    shop.sell((1, 10, "eu"), (9, 10, "eu"))
    second = poll(sensor, first.cursor)
    assert keys(second) == [1, 9]
    assert poll(sensor, second.cursor).requests == ()


def test_a_row_that_changes_is_new_again(shop: Shop) -> None:
    shop.sell((1, 10, "eu"))
    sensor = watch(database=shop.connect)
    first = poll(sensor)
    shop.execute("UPDATE sales SET at = 11 WHERE id = 1")
    assert [one.run_key for one in poll(sensor, first.cursor).requests] == ["i:11 i:1"]


def test_without_partitions_one_run_is_for_all_of_them(shop: Shop) -> None:
    shop.sell((1, 10, "eu"), (2, 20, "us"))
    sensed = poll(watch(database=shop.connect, partition=None))
    assert [(one.partition, one.run_key) for one in sensed.requests] == [(None, "i:20 i:2")]


def test_partitions_come_from_further_columns_and_may_be_added(shop: Shop) -> None:
    shop.sell((1, 10, "eu"), (2, 20, "us"), (3, 30, "eu"))
    sensor = watch(
        database=shop.connect,
        columns=["region"],
        partition=lambda row: None if row["region"] == "us" else row["region"],
        add_to="regions",
    )
    sensed = poll(sensor)
    assert [(one.partition, one.run_key) for one in sensed.requests] == [("eu", "i:30 i:3")]
    assert sensed.partitions == (PartitionChange("regions", "s:eu"),)


def test_one_unique_column_is_enough(shop: Shop) -> None:
    shop.sell((1, 1, "eu"), (2, 1, "eu"))
    sensor = new_rows(
        "sales", name="s", selection="r", watermark="id", database=shop.connect, partition=lambda row: row["id"]
    )
    first = poll(sensor)
    shop.sell((3, 0, "eu"))
    assert (keys(first), keys(poll(sensor, first.cursor))) == ([1, 2], [3])


def test_a_query_may_stand_for_a_table(shop: Shop) -> None:
    shop.sell((1, 10, "eu"), (2, 20, "us"))
    sensor = watch("european", database=shop.connect, query="SELECT * FROM sales WHERE region LIKE 'e%'; ")
    assert keys(poll(sensor)) == [1]


def test_names_are_quoted(shop: Shop) -> None:
    shop.execute('CREATE TABLE "a ""b; %s" ("the at?" INTEGER, "%" TEXT)')
    shop.execute('INSERT INTO "a ""b; %s" VALUES (1, \'x\')')
    sensor = watch('a "b; %s', watermark="the at?", key="%", database=shop.connect, partition=lambda row: row["%"])
    first = poll(sensor)
    assert (keys(first), keys(poll(sensor, first.cursor))) == (["x"], [])


def test_connections_come_from_functions_pools_and_resources(shop: Shop) -> None:
    class Pool:
        given = 0

        @contextmanager
        def connection(self) -> Iterator[sqlite3.Connection]:
            self.given += 1
            with closing(shop.connect()) as connection:
                yield connection

    shop.sell((1, 10, "eu"))
    pool, sensor = Pool(), watch(resource="db")
    assert sensor.requires == ("db",)
    with closing(shop.connect()) as connection:
        for resource in (connection, shop.connect, pool, pool.connection):
            assert keys(poll(sensor, db=resource)) == [1]
        assert connection.execute("SELECT count(*) FROM sales").fetchall() == [(1,)]
    assert pool.given == 2
    for wrong in (7, lambda: 7, object()):
        with pytest.raises(ResourceError, match="DB-API"):
            poll(sensor, db=wrong)


@pytest.mark.parametrize("style", ["qmark", "named", None])
def test_parameters_are_marked_as_the_driver_wants(shop: Shop, style: str | None) -> None:
    shop.sell((1, 10, "eu"))
    sensor = watch(database=shop.connect, dialect=Dialect(parameter_style=style))
    first = poll(sensor)
    assert (keys(first), keys(poll(sensor, first.cursor))) == ([1], [])


def test_settling_leaves_young_rows_for_later(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.sales (id int, at timestamptz)")
        connection.execute("INSERT INTO public.sales VALUES (1, '2023-12-31 23:59:00Z'), (2, '2024-01-01Z')")
    sensor = watch(("public", "sales"), database=database_url, settle=timedelta(seconds=30))
    first = poll(sensor)
    assert keys(first) == [1]
    assert keys(poll(sensor, first.cursor, now=NOW + timedelta(seconds=30))) == [2]


def test_settling_needs_times(shop: Shop) -> None:
    shop.sell((1, 10, "eu"))
    with pytest.raises(SensorError, match="settle"):
        poll(watch(database=shop.connect, settle=5))


def test_a_key_that_is_null_is_an_error(shop: Shop) -> None:
    shop.execute("CREATE TABLE loose (id INTEGER, at INTEGER)")
    shop.execute("INSERT INTO loose VALUES (NULL, 1)")
    with pytest.raises(SensorError, match="unique and not NULL"):
        poll(watch("loose", database=shop.connect))


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 30), max_size=4), st.integers(0, 2), st.booleans()), max_size=12),
    st.integers(1, 3),
    st.sampled_from([0, 2, 2000]),
)
def test_every_row_triggers_exactly_once_through_crashes_and_replays(
    steps: list[tuple[set[int], int, bool]], limit: int, max_seen: int
) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE sales (id INTEGER PRIMARY KEY, at INTEGER)")
    sensor = watch(resource="db", limit=limit)
    cursor: str | None = None
    ran: list[str] = []
    at = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watermark, "MAX_SEEN", max_seen)
        for ids, forward, committed in [*steps, *[(set[int](), 0, True)] * 40]:
            at += forward
            # with too few remembered, rows of one watermark must come in the order of their keys
            fresh = sorted(ids) if max_seen else [100 * len(steps) + at * 100 + one for one in sorted(ids)]
            newest = connection.execute("SELECT coalesce(max(id), 0) FROM sales").fetchone()[0]
            for one in fresh:
                if max_seen == 2000 or one > newest:
                    connection.execute("INSERT OR IGNORE INTO sales VALUES (?, ?)", [one, at])
            connection.commit()
            sensed = poll(sensor, cursor, db=connection)
            if committed:
                ran += [one.run_key or "" for one in sensed.requests if one.run_key not in ran]
                cursor = sensed.cursor
    rows = connection.execute("SELECT at, id FROM sales").fetchall()
    connection.close()
    assert sorted(ran) == sorted(f"i:{row[0]} i:{row[1]}" for row in rows)


VALUES = {
    "timestamptz": [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)],
    "timestamp": [datetime(2024, 1, 1), datetime(2024, 1, 1, 0, 0, 0, 1)],
    "date": [date(2024, 1, 1), date(2024, 1, 2)],
    "bigint": [1, 2**62],
    "numeric": [Decimal("0.10"), Decimal("1e30")],
    "double precision": [0.1, 1e300],
    "text": ["a%s", "ä\\"],
    "uuid": [UUID(int=1), UUID(int=2)],
    "bytea": [b"\x00", b"\x01"],
}


@pytest.mark.parametrize("kind", VALUES)
def test_postgres_watermarks_of_every_type_come_back_exactly(kind: str, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET timezone = 'America/New_York'")
        create = sql.SQL('CREATE TABLE "odd % ""name" (at {}, id uuid DEFAULT gen_random_uuid())')
        connection.execute(create.format(sql.SQL(kind)))
        low, high = VALUES[kind]
        insert = 'INSERT INTO "odd %% ""name" (at) VALUES (%s)'
        connection.execute(insert, [low])
        sensor = watch('odd % "name', database=database_url, partition=lambda row: str(row["id"]))
        first = poll(sensor)
        connection.execute(insert, [low])
        late = poll(sensor, first.cursor)
        connection.execute(insert, [high])
        second = poll(sensor, late.cursor)
        assert [len(one.requests) for one in (first, late, second)] == [1, 1, 1]
        assert poll(sensor, second.cursor).requests == ()


def test_postgres_reads_in_portions_by_the_order_of_keys(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "MAX_SEEN", 3)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE sales AS SELECT i AS id, now() AS at FROM generate_series(1, 25) AS i")
    sensor, cursor, found = watch(database=database_url, limit=4), None, []
    for _ in range(8):
        sensed = poll(sensor, cursor)
        found += keys(sensed)
        cursor = sensed.cursor
    assert found == list(range(1, 26))


def test_a_statement_that_hangs_is_ended_by_the_server(database_url: str) -> None:
    sensor = watch("slow", database=database_url, query="SELECT 1 AS at, pg_sleep(60)::text AS id", timeout=0.05)
    with pytest.raises(psycopg.errors.QueryCanceled):
        poll(sensor)


@pytest.mark.parametrize(
    "options",
    [
        {"database": None},
        {"resource": "db", "database": "x"},
        {"limit": 0},
        {"settle": -1},
        {"watermark": ""},
        {"watermark": 7},
        {"columns": "region"},
        {"columns": [""]},
        {"dialect": Dialect(parameter_style="dollar")},
        {"partition": None, "add_to": "x"},
        {"table": ()},
        {"table": 7},
        {"tabel": "x"},
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        watch(options.pop("table", "x"), **{"database": "postgresql://"} | options)
