from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from flowstone.core.output import OutputAddress
from flowstone.errors import ConfigurationError, SerializationError, StorageError
from flowstone.io import FilesystemIO, PostgresIO

type Connect = Callable[[], psycopg.Connection]


def address(*, attempt: int = 1) -> OutputAddress:
    return OutputAddress("numbers", "2024", run_id="run", step_id=1, attempt=attempt, token=attempt)


@pytest.fixture
def connect(io_database: str) -> Connect:
    # A row factory of the application must not matter.
    return lambda: psycopg.connect(io_database, autocommit=True, row_factory=dict_row)  # type: ignore[arg-type]


def chunks(connect: Connect) -> list[tuple[str, int, int]]:
    with connect() as connection:
        rows = connection.execute(
            "SELECT version, chunk, length(payload) AS size FROM flowstone.output_chunks ORDER BY 1, 2"
        )
        return [tuple(row.values()) for row in rows]  # type: ignore[attr-defined]


def refuse() -> psycopg.Connection:
    raise AssertionError("no connection is needed")


@pytest.mark.parametrize("size", [0, 1, 100])
def test_small_values_travel_with_the_commit(size: int) -> None:
    manager = PostgresIO(refuse, inline_limit_bytes=100)
    stored = manager.store(bytes(size), address())
    assert stored.payload == bytes(size)
    assert stored.location == "inline:1-1"
    assert "payload" not in stored.to_json()
    assert manager.load(stored) == bytes(size)


@pytest.mark.parametrize(("size", "sizes"), [(101, [50, 50, 1]), (150, [50, 50, 50]), (199, [50, 50, 50, 49])])
def test_larger_values_are_chunked(connect: Connect, size: int, sizes: list[int]) -> None:
    manager = PostgresIO(connect, inline_limit_bytes=100, chunk_bytes=50)
    value = bytes(range(200))[:size]
    stored = manager.store(value, address())
    assert stored.payload is None
    assert chunks(connect) == [("1-1.1", number, length) for number, length in enumerate(sizes)]
    assert manager.load(stored) == value


def test_chunks_larger_than_the_inline_limit(connect: Connect) -> None:
    manager = PostgresIO(connect, inline_limit_bytes=10, chunk_bytes=50)
    assert manager.load(manager.store(b"x" * 11, address())) == b"x" * 11
    assert chunks(connect) == [("1-1.1", 0, 11)]


def test_a_value_that_is_too_large_leaves_nothing(connect: Connect) -> None:
    manager = PostgresIO(connect, inline_limit_bytes=10, chunk_bytes=50, max_bytes=120)
    manager.store(b"x" * 120, address())
    with pytest.raises(StorageError, match="io='filesystem'") as caught:
        manager.store([b"x" * 60, b"y" * 61], address(attempt=2))
    assert (caught.value.kind, caught.value.asset, caught.value.partition) == ("too_large", "numbers", "2024")
    assert [version for version, *_ in chunks(connect)] == ["1-1.1"] * 3


def test_a_refused_value_leaves_nothing(connect: Connect) -> None:
    with pytest.raises(SerializationError, match="numbers"):
        PostgresIO(connect, inline_limit_bytes=0).store([b"x" * 1000, object()], address())
    assert chunks(connect) == []


def test_a_changed_chunk_is_refused(connect: Connect) -> None:
    manager = PostgresIO(connect, inline_limit_bytes=0, chunk_bytes=50)
    stored = manager.store(b"x" * 120, address())
    with connect() as connection:
        connection.execute("UPDATE flowstone.output_chunks SET payload = repeat('y', 50)::bytea WHERE chunk = 1")
    with pytest.raises(StorageError) as caught:
        manager.load(stored)
    assert caught.value.kind == "corrupt"
    with connect() as connection:
        connection.execute("DELETE FROM flowstone.output_chunks WHERE chunk = 1")
    with pytest.raises(StorageError, match="not those that were stored"):
        manager.load(stored)


def test_a_changed_payload_is_refused() -> None:
    manager = PostgresIO(refuse)
    stored = manager.store([1, 2], address())
    with pytest.raises(StorageError, match="not those that were stored"):
        manager.load(replace(stored, payload=b"[1, 3]"))


def test_failures_are_classified(connect: Connect, io_database: str) -> None:
    def read_only() -> psycopg.Connection:
        return psycopg.connect(io_database, autocommit=True, options="-c default_transaction_read_only=on")

    def nowhere() -> psycopg.Connection:
        return psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2", autocommit=True)

    for broken, kind in ((read_only, "read_only"), (nowhere, "unavailable")):
        with pytest.raises(StorageError) as caught:
            PostgresIO(broken, inline_limit_bytes=0).store(b"xy", address())
        assert caught.value.kind == kind
    with connect() as connection:
        connection.execute("DROP TABLE flowstone.output_chunks")
    with pytest.raises(StorageError, match="flowstone db upgrade"):
        PostgresIO(connect, inline_limit_bytes=0).store(b"xy", address())


def test_a_connection_that_breaks_while_writing(connect: Connect) -> None:

    manager = PostgresIO(connect, inline_limit_bytes=0, chunk_bytes=10)
    previous = manager.store(b"good", address())

    def cut() -> psycopg.Connection:
        connection = connect()
        with connect() as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        return connection

    with pytest.raises(StorageError) as caught:
        PostgresIO(cut, inline_limit_bytes=0).store(b"x" * 100, address(attempt=2))
    assert caught.value.kind == "unavailable"
    assert manager.load(previous) == b"good"


def test_sweep_deletes_what_nobody_wants(connect: Connect) -> None:
    manager = PostgresIO(connect, inline_limit_bytes=0, chunk_bytes=10)
    stored = [manager.store(b"x" * 25, address(attempt=n)) for n in (1, 2, 3)]
    assert manager.sweep(older_than_seconds=0) == 0
    assert manager.sweep(older_than_seconds=0, keep=lambda versions: {"1-2.2"}) == 6
    assert manager.load(stored[1]) == b"x" * 25
    assert {version for version, *_ in chunks(connect)} == {"1-2.2"}


def test_a_location_of_another_manager_is_refused(tmp_path: object) -> None:
    stored = FilesystemIO(str(tmp_path)).store(1, address())
    for action in (PostgresIO(refuse).load, PostgresIO(refuse).discard):
        with pytest.raises(StorageError) as caught:
            action(stored)
        assert caught.value.kind == "unsafe"


@pytest.mark.parametrize(
    "options",
    [
        {"inline_limit_bytes": -1},
        {"inline_limit_bytes": 10, "max_bytes": 9},
        {"chunk_bytes": 0},
        {"chunk_bytes": 2**30},
        {"chunk_bytes": None},
        {"max_bytes": "9"},
        {"inline_limit_bytes": 1.5},
    ],
)
def test_sizes_that_contradict_each_other(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="PostgresIO"):
        PostgresIO(refuse, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("connect", [None, "postgresql:///shop", 5])
def test_what_makes_no_connections_is_refused(connect: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a function that returns a connection"):
        PostgresIO(connect)
