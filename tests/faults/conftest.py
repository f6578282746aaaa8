from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet, fleet_of
from tests.faults.invariants import violations

from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres
from flowstone.stores.postgres.store import upgrade
from flowstone.testing.postgres import remove_server

_PASSED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = f"{Path(__file__).parent}{os.sep}"
    for item in items:
        if str(item.path).startswith(here):  # there are thousands
            item.add_marker(pytest.mark.faults)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


def check_promises(fleet: Fleet, request: pytest.FixtureRequest) -> None:
    """After a test that passed: everything ends, and the tables keep every promise."""
    if request.node.stash.get(_PASSED, False):
        fleet.wait_over()
        assert violations(fleet.database_url) == {}


@pytest.fixture
def fleet(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet on a database of its own; whatever was done to it, the promises hold at the end."""
    with fleet_of(tmp_path, database_url) as fleet:
        yield fleet
        check_promises(fleet, request)


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A durable server that this test may harm, with a migrated database."""
    # not under pytest's directory: the next session takes its rights away from the server's user
    directory = Path(tempfile.mkdtemp(prefix="flowstone-faults-"))
    server = EmbeddedPostgres(directory)
    try:
        upgrade(Database(server.start()))
        yield server
    finally:
        server.stop()
        remove_server(directory)


@pytest.fixture
def own_fleet(own_server: EmbeddedPostgres, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A fleet on a server of its own; the promises hold at the end."""
    dsn = own_server.start()
    with fleet_of(tmp_path, dsn) as fleet:
        yield fleet
        check_promises(fleet, request)
