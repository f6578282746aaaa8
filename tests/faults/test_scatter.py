"""Workers are killed while items are discovered, worked on and gathered: nothing is lost, nothing is doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults import scatter_app
from tests.faults.conftest import check_promises
from tests.faults.fleet import Fleet
from tests.faults.scatter_app import HALF, NUMBER

from flowstone import FlowStone
from flowstone.core.state import State
from flowstone.testing.injection import AFTER_STORE

FAILING = [number for number in range(NUMBER) if number % 50 == 7]


class ScatterFleet(Fleet):
    """Workers of the app that scatters."""

    app = "tests.faults.scatter_app"

    def client(self) -> FlowStone:
        return scatter_app.make_flow(self.database_url, self.storage)

    def kill(self, pid: int) -> None:
        """Kill a worker by its process."""
        next(worker for worker in self.workers if worker.pid == pid).kill()

    def check(self, run_id: str) -> None:
        """Wait for the end, and check what was gathered."""
        self.wait_over([run_id])
        assert self.flow.runs.get(run_id).state is State.COMPLETED, self.report("success")
        expected = [-number for number in range(NUMBER) if number not in FAILING]
        gathered = self.flow.load("found")
        assert gathered == {"values": expected, "total": NUMBER, "failed": len(FAILING)}
        (items,) = self.flow.runs.latest(parent=run_id)
        assert items.counts == {State.COMPLETED: len(expected), State.FAILED: len(FAILING)}


@pytest.fixture
def fleet(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ScatterFleet]:
    fleet = ScatterFleet(tmp_path, database_url)
    try:
        yield fleet
        check_promises(fleet, request)
    finally:
        fleet.close()


def test_sigkill_during_discovery(fleet: ScatterFleet) -> None:
    """Items that were added run while nobody discovers; the next attempt finds them again."""
    fleet.start(2)
    run_id = fleet.place("found")
    victim = fleet.wait_event(HALF, "found")[0].pid
    fleet.wait_event("end", "found.item", count=20)
    fleet.kill(victim)
    fleet.open_gate(HALF)
    fleet.check(run_id)
    assert len(fleet.events("discover", "found")) == 2
    assert len(fleet.events("end", "found")) == 1


def test_sigkill_among_the_items(fleet: ScatterFleet) -> None:
    """What the worker had begun runs again, the rest once."""
    fleet.open_gate(HALF)
    fleet.start(2)
    run_id = fleet.place("found")
    fleet.kill(fleet.wait_event("end", "found.item", count=40)[-1].pid)
    fleet.check(run_id)
    assert len(fleet.events("discover", "found")) == 1
    assert len(fleet.events("end", "found")) == 1


@pytest.mark.parametrize("phase", ["discovering", "gathering"])
def test_sigkill_before_the_commit(fleet: ScatterFleet, phase: str) -> None:
    """All items were added, or gathered, and the transaction that says so never came."""
    fleet.start(2)
    run_id = fleet.place("found")
    fleet.wait_event(HALF, "found")
    if phase == "discovering":
        fleet.kill_points.arm(AFTER_STORE, "found")
        fleet.open_gate(HALF)
    else:
        fleet.open_gate(HALF)
        fleet.wait(lambda: fleet.states("found") != ["running"], "the end of the discovery")
        fleet.kill_points.arm(AFTER_STORE, "found")
    fleet.check(run_id)
    assert not fleet.kill_points.armed(AFTER_STORE, "found")
    times = 1 if phase == "discovering" else 2
    assert len(fleet.events("end", "found")) == times
    assert len(fleet.events("discover", "found")) == 3 - times


def test_a_cancel_reaches_every_worker(fleet: ScatterFleet) -> None:
    """A cancel reaches items of every worker, and what discovers."""
    fleet.start(2)
    run_id = fleet.place("found")
    fleet.wait_event(HALF, "found")
    fleet.flow.runs.cancel(run_id)
    fleet.wait_over()
    assert fleet.flow.runs.get(run_id).state is State.CANCELLED
    (items,) = fleet.flow.runs.latest(parent=run_id)
    assert items.state in (State.CANCELLED, State.FAILED, State.COMPLETED), json.dumps(items.counts)
    assert not fleet.flow.exists("found")
