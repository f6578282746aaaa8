from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from flowstone import telemetry
from flowstone.app import FlowStone
from flowstone.config import Settings
from flowstone.core.asset import asset
from flowstone.core.capability import Capability
from flowstone.core.check import check
from flowstone.core.definition import StaticPartitions
from flowstone.core.job import Job
from flowstone.core.partitions_by_time import DailyPartitions
from flowstone.core.state import State
from flowstone.errors import (
    ConfigurationError,
    DefinitionError,
    DependencyNotReadyError,
    ExecutorUnavailableError,
    OptionsError,
    PartitionError,
    RunNotFoundError,
    SelectionError,
    StepCancelledError,
    UnknownAssetError,
    UnknownExecutorError,
    UnknownPartitionError,
    WaitTimeoutError,
)
from flowstone.executors.inline import SyncExecutor
from flowstone.io import MemoryIO

days = DailyPartitions(date(2024, 1, 1), end=date(2024, 1, 11))
calls: list[str] = []


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls.clear()
    monkeypatch.chdir(tmp_path)


@asset
def numbers() -> list[int]:
    calls.append("numbers")
    return [1, 2, 3]


@asset
def doubled(numbers: list[int]) -> list[int]:
    calls.append("doubled")
    return [2 * number for number in numbers]


@asset(partitions=days)
def daily(context) -> str:
    return str(context.partition)


@asset(partitions=days)
def after(daily: str) -> str:
    return f"after {daily}"


@asset(partitions=StaticPartitions(["eu"]))
def region() -> int:
    return 1


@pytest.fixture
def flow() -> FlowStone:
    return FlowStone.for_testing([numbers, doubled, daily, after, region])


def test_for_testing_ignores_the_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", "postgresql://nowhere.invalid/db")
    monkeypatch.setenv("FLOWSTONE_EXECUTOR", "oban")
    flow = FlowStone.for_testing([numbers])
    assert flow.materialize("numbers").value == [1, 2, 3]
    assert flow.parts.store.name == "memory"


def test_parts_may_come_from_generators() -> None:
    """Each is read once, however often the app looks at what it was given."""

    class Watches:
        name, dropped, failed, waiting = "watches", 0, 0, 0

        def start(self, app: Any) -> None:
            calls.append("started")

        def stop(self) -> None: ...

        def flush(self, *, timeout_seconds: float) -> bool:
            return True

    flow = FlowStone.for_testing(
        (one for one in [numbers, doubled]),
        checks=(one for one in [check("numbers", name="three")(lambda numbers: len(numbers) == 3)]),
        observers=(one for one in [Watches()]),
        notifiers=(one for one in [print]),
    )
    with flow:
        made = flow.materialize_all("doubled")
    assert made.value == [2, 4, 6]
    assert calls == ["started", "numbers", "doubled"]
    assert [len(list(flow.parts.checks.declared))] == [1]


def test_for_production_needs_a_database() -> None:
    with pytest.raises(ExecutorUnavailableError, match="no database is configured"):
        FlowStone.for_production([numbers], settings=Settings())


def test_oban_never_falls_back(flow: FlowStone) -> None:
    with pytest.raises(ExecutorUnavailableError, match="FLOWSTONE_DATABASE_URL"):
        flow.materialize("numbers", executor="oban")
    assert flow.runs.latest() == []


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda f: f.materialize("numbres"), UnknownAssetError, "Did you mean 'numbers'"),
        (lambda f: f.materialize("daily"), PartitionError, "say which partition"),
        (lambda f: f.materialize("daily", partition="x"), UnknownPartitionError, "x"),
        (lambda f: f.materialize("daily", partition=date(2030, 1, 1)), UnknownPartitionError, "2030"),
        (lambda f: f.materialize("numbers", partition="x"), UnknownPartitionError, "no partitions"),
        (lambda f: f.materialize("numbers", executor="synk"), UnknownExecutorError, "Did you mean 'sync'"),
        (lambda f: f.materialize("numbers", priority=True), OptionsError, "priority=True"),
        (lambda f: f.materialize("numbers", run_id="\x00"), OptionsError, "run_id"),
        (lambda f: f.materialize("numbers", exekutor="sync"), OptionsError, "Did you mean 'executor'"),
        (lambda f: f.materialize("numbers", executor_opts={"timeout_seconds": -1}), OptionsError, "-1"),
        (lambda f: f.materialize_all("nope"), SelectionError, "nope"),
        (lambda f: f.materialize_all("tag:none"), SelectionError, "selects no asset"),
        (lambda f: f.backfill("numbers", partitions=["x"]), PartitionError, "None of numbers is partitioned"),
        (lambda f: f.backfill("daily", partitions="2024-01-01"), PartitionError, "pass a list"),
        (lambda f: f.backfill("daily", partitions=[date(2030, 1, 1)]), UnknownPartitionError, "2030"),
        (lambda f: f.load("numbers"), DependencyNotReadyError, "numbers"),
        (lambda f: f.runs.get("nope"), RunNotFoundError, "nope"),
        (lambda f: f.runs.step("nope"), RunNotFoundError, "nope"),
        (lambda f: f.cancel_job("nope"), RunNotFoundError, "nope"),
        (lambda f: f.runs.cancel("nope"), RunNotFoundError, "nope"),
        (lambda f: f.lineage.upstream("nope"), UnknownAssetError, "nope"),
    ],
)
def test_bad_requests_are_clear_and_leave_nothing(flow: FlowStone, call, error, text: str) -> None:
    with pytest.raises(error, match=text):
        call(flow)
    assert flow.runs.latest() == []


def test_missing_inputs_are_named_with_the_command(flow: FlowStone) -> None:
    with pytest.raises(DependencyNotReadyError, match=r"no committed materialization of daily \[2024-01-02\]"):
        flow.materialize("after", partition=date(2024, 1, 2))


def test_force_is_for_targets_and_force_deps_for_the_rest(flow: FlowStone) -> None:
    flow.materialize_all("doubled")
    assert calls == ["numbers", "doubled"]
    assert flow.materialize_all("doubled").reused == 1
    flow.materialize_all("doubled", force=True)
    assert calls[2:] == ["doubled"]
    flow.materialize_all("doubled", force=True, force_deps=True)
    assert calls[3:] == ["numbers", "doubled"]
    assert flow.materialize_all("+doubled").reused == 1


def test_a_selection_runs_its_leaves_with_what_is_missing(flow: FlowStone) -> None:
    result = flow.materialize_all(["numbers", "doubled"])
    assert result.targets == (("doubled", ""),)
    assert result.total == 2


def test_a_backfill_expands_only_to_what_is_selected(flow: FlowStone) -> None:
    with pytest.raises(DependencyNotReadyError):
        flow.backfill("after", partitions=[date(2024, 1, 2)])
    result = flow.backfill("+after", partitions=[date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 2)])
    assert (result.ok, result.total) == (True, 4)
    assert flow.load("after", partition=date(2024, 1, 3)) == "after 2024-01-03"
    step = flow.runs.steps(result.run_id)[0]
    assert (step.queue, step.priority) == ("backfill", 8)
    assert flow.backfill("daily", priority=1).record.priority == 1


def test_all_complete_partitions(flow: FlowStone) -> None:
    result = flow.materialize_all("daily")
    assert result.total == 11
    assert flow.materialize_all("daily", partition=date(2024, 1, 4)).reused == 1


def test_a_plan_changes_nothing(flow: FlowStone) -> None:
    plan = flow.plan("doubled")
    assert ([step.asset for step in plan.steps], plan.runs, plan.reuses) == (["numbers", "doubled"], 2, 0)
    flow.materialize("numbers")
    assert flow.plan("doubled").runs == 1
    assert flow.plan("daily", partitions=[date(2024, 1, 1)]).runs == 1
    assert flow.plan("numbers", force=True).runs == 1
    assert len(flow.runs.latest()) == 1


def test_history_and_exists(flow: FlowStone) -> None:
    assert not flow.exists("numbers")
    first = flow.materialize("numbers")
    second = flow.materialize("numbers", force=True)
    assert [one.step_id for one in flow.history("numbers")] == [second.step_id, first.step_id]
    assert [one.step_id for one in flow.history("numbers", limit=1)] == [second.step_id]
    assert flow.history("daily", partition=date(2024, 1, 1)) == []


def test_waiting_gives_up_in_time(flow: FlowStone) -> None:
    job = flow.schedule("numbers", executor="async", scheduled_at=datetime(2100, 1, 1, tzinfo=UTC))
    started = datetime.now(UTC)
    with pytest.raises(WaitTimeoutError, match="goes on running"):
        flow.runs.wait_for(job, timeout_seconds=0.05)
    assert (datetime.now(UTC) - started).total_seconds() < 30
    assert flow.cancel_job(job) is State.CANCELLED


def test_parts_must_fit() -> None:
    with pytest.raises(ConfigurationError, match="calls itself 'memory'"):
        FlowStone.for_testing([numbers], io={"mine": MemoryIO()})
    with pytest.raises(ConfigurationError, match="Did you mean 'memory'"):
        FlowStone.for_testing([numbers], default_io="memry")

    @asset(io="filesystm")
    def wrong() -> None: ...

    with pytest.raises(DefinitionError, match="Did you mean 'filesystem'"):
        FlowStone.for_testing([wrong])


def test_the_same_program_on_files(tmp_path: Path) -> None:
    settings = Settings(executor="sync", storage=str(tmp_path / "storage"))
    with FlowStone([numbers, doubled], settings=settings, default_io="filesystem") as flow:
        result = flow.materialize_all("doubled")
        assert flow.load("doubled") == [2, 4, 6]
        (version,) = result.materializations.values()
        assert version.data_version


def test_resources_are_opened_for_those_who_ask_and_closed_with_the_app() -> None:
    closed: list[str] = []

    @asset(requires=["client"])
    def uses(context) -> str:
        return context.resources.client

    @contextmanager
    def client():
        yield "client"
        closed.append("client")

    with FlowStone.for_testing([uses], resources={"client": client}) as flow:
        assert flow.materialize("uses").value == "client"
        assert closed == []
    assert closed == ["client"]


def test_telemetry_of_runs(flow: FlowStone) -> None:
    seen: list[str] = []
    telemetry.attach("flow", ["run.*"], lambda event, measured, about: seen.append(event))
    try:
        flow.materialize_all("doubled")
    finally:
        telemetry.detach("flow")
    assert seen == ["run.start", "run.ended"]


def test_invalidated_versions_are_computed_again() -> None:
    calls: list[int] = []

    @asset
    def made() -> int:
        calls.append(1)
        return len(calls)

    flow = FlowStone.for_testing([made])
    assert flow.materialize("made").value == 1
    assert flow.invalidate("made") == 1
    assert not flow.exists("made")
    assert flow.materialize("made").value == 2
    assert [one.value for one in flow.history("made")] == [2, 1]


def test_an_executor_that_declares_cancel_learns_with_the_job() -> None:
    reported: list[Job] = []

    class Elsewhere(SyncExecutor):
        name = "elsewhere"
        capabilities = frozenset({Capability.CANCEL})

        def schedule(self, job: Job, **options: Any) -> Job:
            return job

        def cancel(self, job: Job) -> None:
            reported.append(job)

    @asset
    def far() -> None: ...

    flow = FlowStone.for_testing([far])
    job = flow.schedule("far", executor=Elsewhere())
    claims = flow.parts.store.ledger.claim([job.id], now=datetime.now(UTC))  # as if it ran elsewhere
    assert flow.cancel_job(job) is State.CANCELLING
    assert [(one.id, one.asset, one.executor) for one in reported] == [(job.id, "far", "elsewhere")]
    assert len(claims) == 1


@pytest.mark.parametrize("verb", ["materialize", "schedule", "materialize_all", "backfill"])
def test_a_misspelt_option_is_refused_with_the_right_one(verb: str) -> None:
    flow = FlowStone.for_testing([numbers])

    with pytest.raises(OptionsError, match=rf"{verb}\(\) has no option 'forse'. Did you mean 'force'\?"):
        getattr(flow, verb)("numbers", forse=True)


def test_what_was_invalidated_shows_in_its_history_and_in_why() -> None:
    flow = FlowStone.for_testing([numbers])
    first = flow.materialize("numbers")
    assert flow.history("numbers")[0].invalidated_at is None
    assert flow.invalidate("numbers") == 1
    (old,) = flow.history("numbers")
    assert (old.step_id, old.value) == (first.step_id, first.value)
    assert old.invalidated_at is not None
    assert flow.why("numbers")[0].startswith(f"nothing is committed: its version of step {first.step_id} was inv")
    flow.materialize("numbers")
    assert [one.invalidated_at is None for one in flow.history("numbers")] == [True, False]
    assert (flow.invalidate("numbers"), flow.invalidate("numbers")) == (1, 0)


def test_a_run_that_was_cancelled_says_how_it_ended_with_its_steps() -> None:
    @asset
    def stops(numbers: list[int]) -> None:
        flow.runs.cancel("r")

    @asset
    def never(stops: None) -> None:
        raise AssertionError

    flow = FlowStone.for_testing([numbers, stops, never])
    result = flow.materialize_all("never", run_id="r")
    assert (result.state, result.cancelled) == (State.CANCELLED, 1)
    with pytest.raises(StepCancelledError, match="of the steps of run r, 1 cancelled, 2 completed"):
        result.raise_for_failures()
    assert flow.runs.steps("r", state=State.CANCELLED)[0].reason == "cancelled before it started"
