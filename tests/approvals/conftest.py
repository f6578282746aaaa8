from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from tests.approvals.crew import Askers
from tests.faults.fault_app import DIRECTORY
from tests.faults.invariants import violations

_PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture
def crew(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Askers]:
    """Workers and a client on a database of their own."""
    crew = Askers(tmp_path, database_url)
    monkeypatch.setenv(DIRECTORY, str(crew.directory))  # for steps that run in this process
    try:
        yield crew
    finally:
        crew.close()


@pytest.fixture
def whole(crew: Askers, request: pytest.FixtureRequest) -> Iterator[Askers]:
    """The same, for tests at whose end everything is over and the tables keep every promise."""
    yield crew
    if request.node.stash.get(_PASSED, False):
        crew.wait_over()
        assert violations(crew.database_url) == {}
