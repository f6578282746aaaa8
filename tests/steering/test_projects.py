"""Two projects on one database: same names everywhere, workers for both, one storage directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.fleet import Fleet
from tests.steering import projects_app
from tests.worker_app import DIRECTORY

from flowstone import FlowStone
from flowstone.core.project import Project
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.store import upgrade

pytestmark = pytest.mark.faults

PROJECTS = ("default", "shop")


class Shared(Fleet):
    app = "tests.steering.projects_app"

    def client(self) -> FlowStone:
        return self.of("default")

    def of(self, project: str) -> FlowStone:
        return projects_app.make_flow(self.database_url, self.storage, project)


@pytest.fixture
def shared(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    upgrade(Database(database_url, project=Project("shop")))
    shared = Shared(tmp_path, database_url)
    monkeypatch.setenv(DIRECTORY, str(shared.directory))
    try:
        for project in PROJECTS:
            shared.spawn(FLOWSTONE_PROJECT=project)
        for worker in shared.workers:
            worker.wait_ready()
        yield shared
    finally:
        shared.close()


def test_nothing_is_shared(shared: Shared) -> None:
    flows = {"default": shared.flow, "shop": shared.of("shop")}
    with flows["shop"]:
        # values, in all places, and who worked
        for _ in range(3):
            for project, flow in flows.items():
                made = flow.materialize_all("together", executor="oban", force=True, force_deps=True)
                assert made.value == [f"orders of {project}", project, f"file of {project}"]
        for flow in flows.values():
            assert len(flow.history("orders")) == 3

        # a pause and a limit of one queue are nothing to the other
        flows["default"].queues.pause("backfill")
        flows["default"].queues.scale("assets", 1)
        done = flows["shop"].backfill("trivial", executor="oban", executor_opts={"wait_timeout": 60})
        assert (done.record.total, done.ok) == (20, True)
        assert {flows["shop"].load("trivial", partition=number) for number in projects_app.NUMBERS} == {"shop"}
        assert not flows["default"].exists("trivial", partition="0")
        assert [queue.paused for queue in flows["shop"].queues.list() if queue.name == "backfill"] in ([], [False])
        # no step took a detour
        for table in ("steps", "attempts"):
            assert shared.rows(f"SELECT max(attempt) FROM flowstone_shop.{table}") == [(1,)]

        # keys, run keys and cursors
        flows["shop"].partitions.add("keys", ["a"])
        assert [list(flow.partitions.list("keys")) for flow in flows.values()] == [[], ["a"]]
        for project, flow in flows.items():
            shared.wait(lambda flow=flow: flow.exists("requested"), f"the run that {project} asked for")
            assert flow.load("requested") == project
        assert len(shared.rows("SELECT run_key FROM flowstone.run_keys")) == 1
        assert len(shared.rows("SELECT run_key FROM flowstone_shop.run_keys")) == 1


def test_each_worker_has_its_project(shared: Shared) -> None:
    listed = shared.rows("SELECT pid FROM flowstone.workers WHERE kind = 'node'")
    listed += shared.rows("SELECT pid FROM flowstone_shop.workers WHERE kind = 'node'")
    assert [pid for (pid,) in listed] == [worker.pid for worker in shared.workers]
    for schema in ("public", "flowstone_shop"):
        assert shared.rows(f"SELECT count(*) FROM {schema}.oban_producers WHERE queue = 'assets'") == [(1,)]
