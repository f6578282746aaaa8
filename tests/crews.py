"""Fixtures of tests that steer a crew: workers and a client on a database of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet
from tests.faults.invariants import violations
from tests.worker_app import DIRECTORY

PASSED = pytest.StashKey[bool]()


def crew_of[Kind: Fleet](kind: Callable[[Path, str], Kind]) -> Callable[..., Iterator[Kind]]:
    """Return the fixture `crew` for a kind of crew."""

    @pytest.fixture
    def crew(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
        """Workers and a client on a database of their own."""
        crew = kind(tmp_path, database_url)
        monkeypatch.setenv(DIRECTORY, str(crew.directory))  # for steps that run in this process
        try:
            yield crew
        finally:
            crew.close()

    return crew


@pytest.fixture
def whole(crew: Fleet, request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """The same, for tests at whose end everything is over and the tables keep every promise."""
    yield crew
    if request.node.stash.get(PASSED, False):
        crew.wait_over()
        assert violations(crew.database_url) == {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # a hook, found by its name
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report
