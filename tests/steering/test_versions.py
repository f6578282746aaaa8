"""A deploy rolls over: steps that one version of an app placed, and workers with another one."""

from __future__ import annotations

import logging

import pytest
from tests.crews import crew_of
from tests.faults.fleet import Fleet
from tests.steering import versions_app

from flowstone import FlowStone
from flowstone.errors import StepFailedError

pytestmark = pytest.mark.faults

CHANGED = (("total", None), ("region", "gone"), ("reads", None), ("moved", None))


class Rolling(Fleet):
    app = "tests.steering.versions_app"

    def client(self) -> FlowStone:
        return self.of("v1")

    def of(self, version: str, **settings: float) -> FlowStone:
        return versions_app.make_flow(self.database_url, self.storage, version, **settings)

    def worker(self, version: str) -> None:
        self.start(**{versions_app.VERSION: version})


crew = crew_of(Rolling)


def test_what_is_recorded_is_the_version_that_ran(crew: Rolling) -> None:
    flow = crew.flow
    placed = [flow.schedule(name, executor="oban") for name in ("isolated", "scattered")]
    some = flow.backfill("same", executor="oban", executor_opts={"wait_timeout": 0.001}).run_id
    crew.worker("v2")
    for job in placed:
        crew.wait(lambda job=job: flow.job_status(job).is_terminal, job.asset)
    crew.wait(lambda: flow.runs.get(some).state != "running", "the backfill")
    versions = crew.rows("SELECT asset, code_version, count(*) FROM flowstone.steps GROUP BY 1, 2 ORDER BY 1")
    assert versions == [
        ("isolated", "v2", 1),
        ("same", "v2", 1200),
        ("scattered", "v2", 1),
        ("scattered.item", "v2", 2),
    ]
    assert flow.history("isolated")[0].code_version == "v2"


def test_nothing_is_committed_in_another_shape(crew: Rolling, caplog: pytest.LogCaptureFixture) -> None:
    crew.worker("v2")
    with caplog.at_level(logging.WARNING, logger="flowstone"):
        placed = [crew.flow.schedule(name, partition=key, executor="oban") for name, key in CHANGED]
    assert "asset 'total' is declared here with no partitions instead of StaticPartitions" in caplog.text
    crew.flow.schedule("region", partition="x", executor="oban")
    crew.wait(lambda: crew.flow.exists("region", partition="x"), "region x")

    def reasons() -> list[str]:
        return [str(crew.flow.runs.step(job).reason) for job in placed]

    crew.wait(lambda: all(one.startswith("left to a worker with the code") for one in reasons()), "they are left")
    assert crew.rows("SELECT asset FROM flowstone.current_outputs") == [("region",)]
    assert {state for (state,) in crew.rows("SELECT state FROM flowstone.steps WHERE finished_at IS NULL")} == {
        "pending"
    }
    # a worker with the code that placed them comes back: it gets them all
    crew.worker("v1")
    for job in placed:
        assert crew.flow.runs.wait_for(job, timeout_seconds=90).value == "v1"
    assert crew.rows("SELECT max(attempt), max(snoozes) FROM flowstone.steps") == [(1, 0)]


def test_what_no_living_worker_can_run_is_refused_in_the_end(crew: Rolling) -> None:
    crew.worker("v2")
    with crew.of("v1", deps_timeout_seconds=0.5) as flow:
        for name, key in (*CHANGED, ("only_v1", "0")):
            with pytest.raises(StepFailedError, match=r"placed by code that declares|no asset named 'only_v1'"):
                flow.runs.wait_for(flow.schedule(name, partition=key, executor="oban"), timeout_seconds=90)
    assert crew.rows("SELECT count(*) FROM flowstone.current_outputs") == [(0,)]


def test_steps_go_to_those_who_know_them_without_passing_hands(crew: Rolling) -> None:
    crew.worker("v1")
    crew.worker("v2")
    with crew.of("v2") as flow:
        result = flow.backfill("only_v2", executor="oban", executor_opts={"wait_timeout": 60})
        assert result.ok
    assert crew.rows("SELECT max(attempt), max(snoozes) FROM flowstone.steps") == [(1, 0)]
    # the one that does not know them drew its room full once
    assert crew.workers[0].message.count("is left to a worker with the code") <= 1
