"""What a run is about: config, tags, metadata, parts by name; checked early, the same wherever steps run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.app.details_app import GATE, Limits, Mode, Window, make

from flowstone import FlowStone, RunRequest, Schedule, asset
from flowstone.config import Settings
from flowstone.core.state import State
from flowstone.errors import DefinitionError, OptionsError, RunConflictError

GIVEN = {"rows": 3, "mode": "slow", "window": {"hours": [6, 18]}}
EXPECTED = [3, "slow", "2024-01-01", [6, 18]]
DEFAULTS = [10, "fast", "2024-01-01", [0]]


@pytest.fixture(autouse=True)
def _gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GATE, str(tmp_path / "gate"))


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[FlowStone]:
    with make(Settings(executor="sync", storage=str(tmp_path))) as app:
        yield app


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[FlowStone]:
    """The same app on a database, with a worker in another process."""
    storage = str(tmp_path / "kept")
    environment = os.environ | {"FLOWSTONE_DATABASE_URL": database_url, "FLOWSTONE_STORAGE": storage}
    command = [sys.executable, "-m", "flowstone", "worker", "--app", "tests.app.details_app:make", "--grace", "1"]
    with (
        make(Settings(database_url=database_url, storage=storage)) as app,
        (tmp_path / "worker.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as worker,
    ):
        try:
            yield app
        finally:
            Path(environment[GATE]).touch()
            worker.terminate()
            try:
                worker.wait(60)
            except subprocess.TimeoutExpired:
                worker.kill()


def every_step_sees_it(flow: FlowStone, executor: str) -> None:
    how: dict[str, Any] = {
        "executor": executor,
        "config": GIVEN,
        "tags": ["nightly"],
        "metadata": {"ticket": 7},
        "force": True,
    }
    for name in ("plain", "isolated"):
        reported = flow.materialize(name, **how).value
        assert reported["config"] == EXPECTED
        own, kind, tags, metadata, config = reported["run"]
        assert (own, kind, tags, metadata) == (True, "materialize", ["nightly"], {"ticket": 7})
        assert config[name]["rows"] == 3
    flaky = flow.materialize("flaky", **{**how, "executor_opts": {"retry": True} if executor != "oban" else None})
    assert flaky.value["attempt"] == 3
    assert flaky.value["config"] == EXPECTED
    scattered = flow.materialize("scattered", **how)
    assert [one.value for one in scattered.value] == [0, 3, 6]
    done = flow.backfill("daily", partitions=[date(2020, 1, 1)], **how)
    assert list(done.value.values()) == [3]
    assert done.record.tags == ("nightly",)
    assert done.record.config == {"daily": flow.runs.get(done.run_id).config["daily"]}
    both = flow.materialize_all(
        "report", **{**how, "config": {"plain": GIVEN, "regional": {"region": "eu"}}, "force": False}
    )
    assert both.value == [3, "eu"]
    assert flow.materialize("plain", executor=executor, force=True).value["config"] == DEFAULTS
    assert {run.id for run in flow.runs.latest(tag="nightly")} >= {both.run_id, done.run_id}
    assert flow.runs.latest(tag="other") == []


@pytest.mark.parametrize("executor", ["sync", "async", "serial"])
def test_every_step_of_a_run_here_sees_the_config(flow: FlowStone, executor: str) -> None:
    every_step_sees_it(flow, executor)


@pytest.mark.slow
def test_every_step_on_a_worker_sees_the_config(fleet: FlowStone) -> None:
    every_step_sees_it(fleet, "oban")
    # a range of partitions, and a range whose config is a default
    done = fleet.backfill("daily", config={"rows": 4}, max_concurrency=200)
    assert done.total > 1000
    assert set(done.value.values()) == {4}
    again = fleet.backfill("daily", config={"rows": 4})
    assert again.reused == again.total
    other = fleet.backfill("daily", config={"rows": 5})
    assert other.succeeded == other.total
    # one partition is under way with another config when its turn comes: that one fails, the rest goes on
    later = datetime(2100, 1, 1, tzinfo=UTC)
    under_way = fleet.schedule("daily", partition=date(2020, 1, 5), config={"rows": 6}, scheduled_at=later)
    conflicting = fleet.backfill("daily", config={"rows": 7})
    assert (conflicting.failed, conflicting.succeeded) == (1, conflicting.total - 1)
    assert [under_way.run_id in text for text in conflicting.errors.values()] == [True]
    fleet.cancel_job(under_way)
    parts_by_name(fleet, "oban")


def parts_by_name(flow: FlowStone, executor: str) -> None:
    with_parts = flow.materialize(
        "using",
        executor=executor,
        io="filesystem",
        resources={"db": "test_db"},
        hooks=["noting"],
        hooks_config={"noting": {"region": "eu"}},
    )
    assert with_parts.value == "test"
    assert with_parts.stored is not None
    assert with_parts.stored.io == "filesystem"
    assert with_parts.stored.metadata["region"] == "eu"
    assert "began" in with_parts.stored.metadata
    assert [one.passed for one in with_parts.checks] == [True]
    # named, so not served by what others made; and without naming anything whatever is committed serves
    assert flow.materialize("using", executor=executor, resources={"db": "db"}).value == "real"
    assert flow.materialize("using", executor=executor).state is State.REUSED


@pytest.mark.parametrize("executor", ["sync", "async"])
def test_parts_are_named_by_the_run(flow: FlowStone, executor: str) -> None:
    parts_by_name(flow, executor)


def test_objects_of_the_type_are_given_as_well(flow: FlowStone) -> None:
    given = Limits(rows=3, mode=Mode.SLOW, window=Window(hours=[6, 18]))

    assert flow.materialize("plain", config=given).value["config"] == EXPECTED
    assert flow.materialize("plain", config={"plain": given}).state is State.REUSED


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"config": {"rowz": 3}}, r"config of asset 'plain'.rowz: there is no such field. Did you mean 'rows'\?"),
    ({"config": {"rows": "many"}}, r"config of asset 'plain'.rows: give a whole number, not 'many'."),
    ({"config": {"rows": float("nan")}}, "give a whole number, not nan"),
    ({"config": {"window": {"since": "yesterday"}}}, r"plain'.window.since: give a day such as 2024-01-31"),
    ({"config": {"password": "a\x00b"}}, "NUL"),
    ({"config": {"password": "x" * 70_000}}, r"more than 65,536"),
    ({"config": {"plane": {"rows": 3}}}, "no such field"),
    ({"config": {"regional": {"region": "eu"}}}, "'regional' is no part of this run"),
    ({"config": [1]}, "give an object"),
    ({"tags": "nightly"}, r"tags=\['nightly'\]"),
    ({"tags": [""]}, "is no tag"),
    ({"tags": {"team": "x"}}, "metadata"),
    ({"metadata": {"at": object()}}, r"metadata.at: a value of type object is not JSON"),
    ({"metadata": {"share": float("inf")}}, r"metadata.share: inf is not JSON"),
    ({"io": "filesistem"}, r"no IO manager 'filesistem'. Did you mean 'filesystem'\?"),
    ({"io": {"plainn": "memory"}}, r"Did you mean 'plain'\?"),
    ({"resources": {"db": "test_db"}}, "nothing in this run requires a resource 'db'"),
    ({"hooks": ["notin"]}, r"no named hook 'notin'. Did you mean 'noting'\?"),
    ({"hooks": ["noting"]}, r"hooks_config\['noting'\].region: it is missing"),
    ({"hooks_config": {"noting": {}}}, "Name it as well"),
    ({"hooks": "noting"}, "list of names"),
    ({"hooks": [print]}, "is an object"),
]


@pytest.mark.parametrize(("options", "match"), REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_placed(
    flow: FlowStone, options: dict[str, Any], match: str
) -> None:
    verbs: list[Callable[..., object]] = [flow.materialize, flow.schedule, flow.materialize_all, flow.backfill]
    for verb in verbs:
        with pytest.raises(OptionsError, match=match):
            verb("plain", **options)
    if options.keys() <= {"config", "io", "resources"}:
        with pytest.raises(OptionsError, match=match):
            flow.plan("plain", **options)

    assert flow.runs.latest() == []


def test_resources_are_named_not_passed(flow: FlowStone) -> None:
    with pytest.raises(OptionsError, match=r"resources={'db': ...}: there is no resource 'test'. Did you mean"):
        flow.materialize("using", resources={"db": "test"})
    with pytest.raises(OptionsError, match="names"):
        flow.materialize("using", resources={"db": object()})  # type: ignore[dict-item]


def test_config_of_several_assets_is_by_asset(flow: FlowStone) -> None:
    with pytest.raises(OptionsError, match="Assets of this run that take one: plain, regional"):
        flow.materialize_all("report", config={"rows": 3})
    with pytest.raises(OptionsError, match=r"Did you mean 'plain'\?"):
        flow.materialize_all("report", config={"plan": {}})
    with pytest.raises(OptionsError, match=r"config of asset 'regional'\.region: it is missing"):
        flow.materialize_all("report")
    with pytest.raises(OptionsError, match="takes no config"):
        flow.materialize_all("report", config={"report": {}})
    with pytest.raises(OptionsError, match=r"config of asset 'regional'.region: it is missing"):
        flow.plan("report")
    with pytest.raises(OptionsError, match="none of using takes a config"):
        flow.materialize("using", config={"a": 1})

    assert flow.runs.latest() == []


def test_a_value_made_with_another_config_does_not_serve_who_names_one(flow: FlowStone) -> None:
    eu = {"plain": {"rows": 1}, "regional": {"region": "eu"}}
    flow.materialize_all("report", config=eu)

    assert flow.materialize("plain", config={"rows": 1}).state is State.REUSED
    assert flow.materialize("plain").state is State.REUSED  # whatever is committed serves who names nothing
    assert flow.materialize_all("report", config=eu).reused == 1
    # the config is that of an input: what was made of it is made again
    assert flow.plan("report", config={**eu, "plain": {"rows": 2}}).runs == 2
    assert flow.materialize_all("report", config={**eu, "plain": {"rows": 2}}).value == [2, "eu"]
    assert flow.materialize("plain", config={"rows": 3}).value["config"][0] == 3


@pytest.fixture
def under_way(flow: FlowStone, tmp_path: Path) -> Iterator[str]:
    """A step of `gated` that computes with rows=3."""
    job = flow.schedule("gated", executor="async", config={"rows": 3}, tags=["first"], metadata={"by": "ann"})
    yield job.run_id
    (tmp_path / "gate").touch()
    flow.runs.wait_for(job, timeout_seconds=90)


def test_who_joins_sees_the_run_that_it_joined(flow: FlowStone, under_way: str) -> None:
    for options in ({}, {"config": {"rows": 3}}):
        job = flow.schedule("gated", executor="async", **options, metadata={"by": "bob"})  # type: ignore[arg-type]
        assert job.deduplicated
        assert job.run_id == under_way
        assert job.metadata == {"by": "ann"}


def test_another_config_does_not_join(flow: FlowStone, under_way: str) -> None:
    before = len(flow.runs.latest())
    with pytest.raises(RunConflictError, match=f"'gated' is computed by run '{under_way}'") as caught:
        flow.schedule("gated", executor="async", config={"rows": 4})
    with pytest.raises(RunConflictError):
        flow.materialize_all("gated", config={"rows": 10}, executor="async")

    assert caught.value.run_id == under_way
    assert len(flow.runs.latest()) == before


@pytest.mark.parametrize("kind", ["memory", "postgres"])
def test_the_same_run_id_with_another_config_is_another_request(
    kind: str, tmp_path: Path, database_url: str
) -> None:
    url = database_url if kind == "postgres" else None
    with make(Settings(executor="sync", database_url=url, storage=str(tmp_path))) as flow:
        first = flow.materialize("plain", config={"rows": 3}, run_id="mine")
        assert flow.materialize("plain", config={"rows": 3}, run_id="mine").step_id == first.step_id
        assert flow.materialize("plain", run_id="mine").step_id == first.step_id
        with pytest.raises(RunConflictError, match="'plain' is computed by run 'mine' with another config"):
            flow.materialize("plain", config={"rows": 4}, run_id="mine")
        assert flow.load("plain")["config"][0] == 3


def test_a_config_of_one_asset_is_no_matter_of_another(flow: FlowStone) -> None:
    """An asset whose config must be given stops no run that does not compute it (dagster 10707, 11462)."""
    assert flow.backfill("daily", partitions=[date(2020, 1, 1)]).ok
    assert flow.materialize("plain").state is State.COMPLETED
    flow.materialize("regional", config={"region": "eu"})
    assert flow.materialize_all("report").value == [10, "eu"]


def test_a_schedule_that_cannot_work_is_refused_when_the_app_is_built(tmp_path: Path) -> None:
    wrong = Schedule("plain", "0 2 * * *", config={"rowz": 3})
    with pytest.raises(DefinitionError, match=r"Schedule 'plain': config of .*Did you mean 'rows'"):
        make(Settings(executor="sync", storage=str(tmp_path)), schedules=[wrong])


def test_a_retry_keeps_what_the_run_was_about(tmp_path: Path) -> None:
    broken = threading.Event()
    broken.set()

    @asset(config=Limits)
    def fragile(context: Any) -> int:
        if broken.is_set():
            raise ValueError("not yet")
        return int(context.config.rows)

    flow = FlowStone.for_testing([fragile])
    failed = flow.materialize_all("fragile", config={"rows": 7, "password": "hunter2"}, tags=["nightly"])
    broken.clear()
    again = flow.runs.retry(failed.run_id)

    assert again.value == 7
    assert again.record.tags == ("nightly",)
    for shown in (repr(again.record), repr(again.record.config), repr(flow.runs.latest())):
        assert "hunter2" not in shown


def test_schedules_and_requests_carry_it(tmp_path: Path) -> None:
    nightly = Schedule("plain", "0 2 * * *", config={"rows": 3}, tags=["nightly"], metadata={"by": "cron"})
    flow = make(Settings(executor="sync", storage=str(tmp_path)), schedules=[nightly])

    tick = flow.schedules.run_now("plain")

    assert tick is not None
    record = flow.runs.get(tick.run_ids[0])
    assert (record.tags, record.metadata, record.config["plain"]["rows"]) == (("nightly",), {"by": "cron"}, 3)
    assert flow.load("plain")["run"][1:3] == ["schedule", ["nightly"]]
    assert RunRequest(selection="plain", tags=["a", "a"]).tags == ("a",)
    with pytest.raises(OptionsError, match="tags"):
        RunRequest(selection="plain", tags="nightly")


@pytest.mark.parametrize("declared", [int, Limits(), "Limits", list])
def test_a_config_that_is_no_type_is_refused_when_declared(declared: object) -> None:
    with pytest.raises(DefinitionError, match="give a dataclass, a TypedDict, a pydantic model"):

        @asset(config=declared)
        def wrong(context: Any) -> None: ...
