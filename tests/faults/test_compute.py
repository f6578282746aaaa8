"""Parts of a Dask cluster are killed while functions run there: one committed result each time, no false one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.compute.dask_cluster import Cluster, OneProgram, cluster_of, kill_group
from tests.faults import compute_app
from tests.faults.conftest import check_promises
from tests.faults.fleet import MAX_WAIT_SECONDS, Fleet, Worker
from tests.worker_app import DIRECTORY

from flowstone import FlowStone
from flowstone.compute import DaskCompute

pytest.importorskip("distributed")

LOST = "flowstone.errors.ComputeLostError"


class ComputeFleet(Fleet):
    """Workers that call functions on a cluster."""

    app = "tests.faults.compute_app"
    cluster: Cluster

    def client(self) -> FlowStone:
        return compute_app.make_flow(self.database_url, self.storage)

    def environment(self, url: str | None = None) -> dict[str, str]:
        return super().environment(url) | {compute_app.SCHEDULER: self.cluster.address}

    def begun(self, count: int = 1, asset: str = "remote") -> int:
        """Wait for the start of a function; return the process in which it runs."""
        pid = self.wait_event("start", asset, count=count)[count - 1].pid
        assert isinstance(self.cluster, OneProgram) or pid in [worker.pid for worker in self.cluster.workers]
        return pid

    def check(self, job: Any, partition: str = "a") -> Any:
        """Let every function go on; check that there is one result, and return it."""
        self.open_gate(partition)
        made = self.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
        committed = [one for one in self.flow.runs.attempts(job) if one.state == "completed"]
        assert [one.attempt for one in committed] == [made.value[1]]
        assert made.value == self.flow.load("remote", partition=partition)
        ended = [one.attempt for one in self.events("end", "remote") if one.key == partition]
        assert ended == [made.value[1]]
        return made


@pytest.fixture
def fleet(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ComputeFleet]:
    given = getattr(request, "param", 0)
    allowed, kind = (0, given) if isinstance(given, type) else (given, Cluster)
    environment = {DIRECTORY: str(tmp_path / "fleet")}
    fleet = ComputeFleet(tmp_path, database_url)
    try:
        options = {"allowed_failures": allowed, "environment": environment, "kind": kind}
        with cluster_of(tmp_path / "cluster", **options) as cluster:
            fleet.cluster = cluster
            yield fleet
            check_promises(fleet, request)
    finally:
        fleet.close()


def test_a_dask_worker_is_killed(fleet: ComputeFleet) -> None:
    """prefect#5925, prefect#8821, prefect#12968: an attempt that failed, and another one on the other worker."""
    fleet.start()
    job = fleet.flow.schedule("remote", partition="a")
    victim = fleet.begun()
    os.kill(victim, signal.SIGKILL)
    assert fleet.begun(2) != victim
    made = fleet.check(job)
    assert made.value == ["a", 2]
    assert [one[1:] for one in fleet.attempts("remote")] == [("failed", LOST), ("completed", None)]
    assert "its worker died while it ran the function" in (fleet.flow.runs.attempts(job)[0].error or "")


def test_the_scheduler_is_killed(fleet: ComputeFleet) -> None:
    """A lost cluster is a failed attempt; the step goes on when there is one again."""
    fleet.start()
    job = fleet.flow.schedule("remote", partition="a")
    fleet.begun()
    assert fleet.cluster.scheduler is not None
    fleet.cluster.scheduler.kill()
    fleet.cluster.scheduler.wait()
    fleet.wait(lambda: len(fleet.attempts("remote")) >= 2, "two attempts without a cluster")
    fleet.cluster.start_scheduler()
    fleet.cluster.start_worker()
    fleet.wait(lambda: len(fleet.events("start", "remote")) >= 2, "the next start")
    fleet.check(job)
    ended = [one[1:] for one in fleet.attempts("remote")]
    assert ended == [("failed", LOST)] * (len(ended) - 1) + [("completed", None)]


def test_the_worker_that_waits_is_killed(fleet: ComputeFleet) -> None:
    """Its lease ends, another one calls again; the first call learns that nobody waits for it."""
    first, second = fleet.start(2)
    job = fleet.flow.schedule("remote", partition="a")
    fleet.begun()
    holder = fleet.rows("SELECT w.pid FROM flowstone.steps s JOIN flowstone.workers w ON w.id = s.worker")
    victim: Worker = next(one for one in (first, second) if one.pid == holder[0][0])
    victim.kill()
    fleet.wait_event("heard", "remote")
    fleet.begun(2)
    made = fleet.check(job)
    assert made.value == ["a", 2]
    assert [one[1:] for one in fleet.attempts("remote")] == [("failed", "WorkerLost"), ("completed", None)]


@pytest.mark.parametrize("fleet", [3], indirect=True)
def test_dask_repeats_by_itself(fleet: ComputeFleet) -> None:
    """With allowed-failures at its default the function runs again unseen: one attempt, one result, a warning."""
    (worker,) = fleet.start()
    job = fleet.flow.schedule("remote", partition="a")
    os.kill(fleet.begun(), signal.SIGKILL)
    fleet.begun(2)
    made = fleet.check(job)
    assert made.value == ["a", 1]
    assert [one[1:] for one in fleet.attempts("remote")] == [("completed", None)]
    assert len(fleet.events("start", "remote")) == 2
    assert "allowed-failures is 3" in worker.message
    dask = DaskCompute(fleet.cluster.address)
    assert any(verdict == "warn" and "allowed-failures" in found for verdict, found, _ in dask.diagnose())
    dask.close()


def test_what_is_committed_is_not_computed_again(fleet: ComputeFleet) -> None:
    """prefect#15442, distributed#7870: futures are released at once, so a dead worker takes nothing along."""
    fleet.start()
    fleet.open_gate("a", "b")
    for partition in ("a", "b"):
        fleet.flow.materialize("remote", partition=partition)
    before = fleet.events("start", "remote")
    os.kill(before[0].pid, signal.SIGKILL)
    assert fleet.flow.materialize("below", partition="a").value == "A"
    assert fleet.flow.materialize("below", partition="b").value == "B"
    assert fleet.events("start", "remote") == before


def test_a_cancel_reaches_the_cluster(fleet: ComputeFleet) -> None:
    """dagster#3866, prefect#17482: the function hears of it, and does not run to its end."""
    fleet.start()
    job = fleet.flow.schedule("remote", partition="a")
    fleet.begun()
    fleet.flow.cancel_job(job)
    fleet.wait(lambda: fleet.flow.job_status(job) == "cancelled", "the cancel")
    fleet.open_gate("a")
    assert fleet.wait_event("heard", "remote")
    assert fleet.events("end", "remote") == []


@pytest.mark.parametrize("fleet", [OneProgram], indirect=True)
def test_three_deaths_on_a_local_cluster(fleet: ComputeFleet) -> None:
    """A worker process, the scheduler, the FlowStone worker: one committed result each time.

    Nannies start a worker process again, the function is not started by Dask again.
    """
    (first,) = fleet.start()
    job = fleet.flow.schedule("remote", partition="a")
    os.kill(fleet.begun(), signal.SIGKILL)
    fleet.begun(2)
    assert fleet.check(job).value == ["a", 2]

    job = fleet.flow.schedule("remote", partition="b")
    fleet.begun(3)
    assert fleet.cluster.scheduler is not None
    kill_group(fleet.cluster.scheduler.pid)
    fleet.cluster.scheduler.wait()
    fleet.wait(lambda: len(fleet.flow.runs.attempts(job)) >= 1, "an attempt that failed")
    fleet.cluster.start()
    fleet.begun(4)
    made = fleet.check(job, "b")
    assert {one.error_type for one in fleet.flow.runs.attempts(job)[:-1]} == {LOST}

    job = fleet.flow.schedule("remote", partition="c")
    fleet.begun(5)
    first.kill()
    fleet.wait_event("heard", "remote")
    fleet.start()
    fleet.begun(6)
    assert fleet.check(job, "c").value == ["c", 2]
    assert made.value[0] == "b"
