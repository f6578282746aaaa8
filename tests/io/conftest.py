from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from tests.io.object_servers import Bucket, Server, moto, seaweed


@pytest.fixture
def io_database(database_url: str) -> str:
    """A database with the tables of PostgresIO."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS flowstone")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS flowstone.output_payloads "
            "(version text PRIMARY KEY, payload bytea NOT NULL)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS flowstone.output_chunks "
            "(version text, chunk int, payload bytea NOT NULL, PRIMARY KEY (version, chunk))"
        )
    return database_url


@pytest.fixture(scope="session")
def moto_server() -> Iterator[Server]:
    with moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_server() -> Iterator[Server]:
    with seaweed() as server:
        yield server


@pytest.fixture(params=["moto_server", "seaweed_server"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A new directory in the bucket of each server."""
    server: Server = request.getfixturevalue(request.param)
    return server.directory()
