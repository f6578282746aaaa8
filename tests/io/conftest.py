from __future__ import annotations

import psycopg
import pytest
from tests.io.object_servers import Bucket, Server, moto, seaweed
from tests.supervision import servers_of


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
def moto_server(pytestconfig: pytest.Config) -> Server:
    return moto(servers_of(pytestconfig))


@pytest.fixture(scope="session")
def seaweed_server(pytestconfig: pytest.Config) -> Server:
    return seaweed(servers_of(pytestconfig))


@pytest.fixture(params=["moto_server", "seaweed_server"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    """A new directory in the bucket of each server."""
    server: Server = request.getfixturevalue(request.param)
    return server.directory()
