"""A database that tests of stores use one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.stores.reused import SHOP, ReusedDatabase

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade
from flowstone.testing.postgres import TemporaryServer


@pytest.fixture(scope="session")
def reused_database(server: TemporaryServer) -> Iterator[ReusedDatabase]:
    with server.database() as dsn:
        database = ReusedDatabase(dsn)
        yield database
        database.close()


@pytest.fixture
def reused_database_url(reused_database: ReusedDatabase) -> str:
    """DSN of a migrated and empty database, which other tests use before and after."""
    return reused_database.empty()


@pytest.fixture(scope="session")
def reused_database_of_a_project(server: TemporaryServer) -> Iterator[ReusedDatabase]:
    with server.empty_database() as dsn:
        upgrade(Database(dsn, project=SHOP))
        database = ReusedDatabase(dsn)
        yield database
        database.close()


@pytest.fixture
def reused_url_of_a_project(reused_database_of_a_project: ReusedDatabase) -> str:
    """The same, without tables of the default project: whatever forgets its project fails there."""
    return reused_database_of_a_project.empty()
