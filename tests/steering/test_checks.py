"""Checks on real workers: a bad value is refused before anything of it is anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.steering import checked_app
from tests.steering.crew import Crew
from tests.worker_app import DIRECTORY

from flowstone import FlowStone
from flowstone.core.clean import clean_metadata
from flowstone.core.outcome import Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import AttemptResult, CheckRecord
from flowstone.errors import StepFailedError

_leaves = st.none() | st.booleans() | st.integers(-(2**1000), 2**1000) | st.floats() | st.text(st.characters())
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


class Checkers(Crew):
    """Workers and a client of the app with checks."""

    app = "tests.steering.checked_app"

    def client(self) -> FlowStone:
        return checked_app.make_flow(self.database_url, self.storage)

    def write(self, content: str) -> None:
        """Say what assets make from now on."""
        (self.directory / "content").write_text(content)

    def count(self, table: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM flowstone.{table}")[0][0])

    def files(self) -> int:
        """Return how many values, or parts of values, lie in the file system."""
        return sum(path.is_file() for path in (Path(self.storage) / "values").rglob("*"))


@pytest.fixture
def checkers(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkers]:
    """Workers and a client on a database of their own."""
    crew = Checkers(tmp_path, database_url)
    monkeypatch.setenv(DIRECTORY, str(crew.directory))  # for steps that run in this process
    try:
        yield crew
    finally:
        crew.close()


@pytest.mark.slow
def test_a_bad_version_is_nowhere(checkers: Checkers) -> None:
    flow = checkers.flow
    checkers.write("a")
    checkers.start(2)
    good = flow.materialize_all("length")
    filed = flow.materialize("filed")
    assert (good.value, good.ok, len(filed.value)) == (checked_app.LARGE, True, checked_app.LARGE)
    chunks, files = checkers.count("output_chunks"), checkers.files()
    assert chunks > 0
    assert files > 0

    checkers.write("b!")
    with pytest.raises(StepFailedError, match="did not pass the blocking check 'clean' \\(it shouts; characters="):
        flow.materialize("page", force=True)
    with pytest.raises(StepFailedError, match="did not pass the blocking check 'filed_clean'"):
        flow.materialize("filed", force=True)
    again = flow.materialize_all("length", force=True, force_deps=True)
    states = {step.asset: step.state for step in flow.runs.steps(again.run_id)}
    assert states == {"page": State.FAILED, "length": State.UPSTREAM_FAILED}

    assert flow.load("page") == "a" * checked_app.LARGE
    assert (flow.load("length"), flow.load("filed")) == (checked_app.LARGE, filed.value)
    assert (checkers.count("output_chunks"), checkers.files()) == (chunks, files)
    assert [attempt for attempt, *_ in checkers.attempts("page")] == [1, 1, 1]  # recomputing changes nothing
    assert len(checkers.events("start", "length")) == 1
    found = {one.check: one for one in flow.checks.latest("page")}
    assert (found["clean"].passed, found["clean"].metadata) == (False, {"characters": 2 * checked_app.LARGE})
    assert [one.passed for one in flow.checks.results("page", check="clean")] == [False, False, True]
    assert [one.check for one in flow.history("page")[0].checks] == ["clean", "long"]
    assert "did not pass the blocking check 'clean'" in flow.why("page")[0]


def test_results_go_with_their_steps(checkers: Checkers) -> None:
    checkers.write("a")
    checkers.flow.materialize("page", executor="sync")
    checkers.flow.materialize("page", executor="sync", force=True)
    assert checkers.count("check_results") == 4
    assert checkers.flow.retention.prune(older_than=timedelta(0)).steps == 1
    assert checkers.count("check_results") == 2


def test_a_refused_result_ends_its_step_without_its_checks(checkers: Checkers) -> None:
    """Whatever the database refuses, the group goes on; it would refuse a poisonous finding for ever."""
    checkers.lease()
    run = checkers.flow.schedule("page", executor_opts={}).run_id
    (job,) = checkers.take("assets")
    claim = job
    poison = CheckRecord(
        check="c",
        asset="page",
        partition_key="",
        step_id=claim.step_id,
        attempt=claim.attempt,
        token=claim.token,
        passed=True,
        description="",
        metadata={"beyond every number": 10**400000},
        started_at=datetime.now(UTC),
    )
    success = Succeeded(StoredOutput("memory", "x"), None)
    checkers.store.ledger.commit([AttemptResult(claim, success, (), datetime.now(UTC), None, (poison,))])
    (step,) = checkers.flow.runs.steps(run)
    assert step.state is State.FAILED
    assert "beyond every number" in (step.error or "")
    assert checkers.count("check_results") == 0


def same(stored: Any, given: Any) -> bool:
    """Whether two documents are equal, a number being the double that it stands for."""
    if isinstance(given, float):
        return float(stored) == given
    if isinstance(given, dict):
        return stored.keys() == given.keys() and all(same(stored[name], one) for name, one in given.items())
    if isinstance(given, list):
        return len(stored) == len(given) and all(map(same, stored, given))
    return type(stored) is type(given) and stored == given


def test_facts_survive_the_database(checkers: Checkers) -> None:
    checkers.write("a")
    checkers.flow.materialize("page", executor="sync")
    known = checkers.flow.checks.results("page", limit=1)[0]
    checks = checkers.store.checks

    @settings(max_examples=30)
    @given(st.dictionaries(st.text(st.characters(), max_size=5), _values, max_size=4))
    def survives(facts: dict[str, Any]) -> None:
        cleaned = clean_metadata(facts)
        checks.record([replace(known, metadata=cleaned)])
        assert same(checks.results("page", limit=1)[0].metadata, cleaned)

    survives()
