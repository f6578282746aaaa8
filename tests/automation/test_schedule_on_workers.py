"""A schedule on real worker processes, of which one is killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.automation import scheduled_app
from tests.faults.fleet import Fleet
from tests.faults.invariants import violations

from flowstone import FlowStone
from flowstone.core.automation.record import TickRecord, TickState
from flowstone.core.state import State


class Scheduled(Fleet):
    """Workers and a client of the app with the schedule."""

    app = "tests.automation.scheduled_app"

    def client(self) -> FlowStone:
        return scheduled_app.make_flow(self.database_url, self.storage)

    def ticks(self) -> list[TickRecord]:
        """Return all ticks, the oldest first."""
        return list(self.flow.schedules.ticks("pulse", limit=1000))[::-1]

    def wait_ticks(self, number: int) -> None:
        self.wait(lambda: len(self.ticks()) >= number, f"{number} ticks")


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Scheduled]:
    fleet = Scheduled(tmp_path, database_url)
    try:
        yield fleet
    finally:
        fleet.close()


@pytest.mark.faults
@pytest.mark.slow
def test_every_second_happens_once_although_a_worker_is_killed(fleet: Scheduled) -> None:
    first, second = fleet.start(2)
    fleet.wait_ticks(3)
    first.kill()
    fleet.wait_ticks(6)
    assert fleet.flow.schedules.pause("pulse")
    fleet.wait_over()
    ticks = fleet.ticks()
    assert {after.at - before.at for before, after in pairwise(ticks)} == {timedelta(seconds=1)}
    assert {tick.state for tick in ticks} == {TickState.REQUESTED}
    runs = [fleet.flow.runs.get(run_id) for tick in ticks for run_id in tick.run_ids]
    assert len(runs) == len(ticks)
    assert {run.state for run in runs} == {State.COMPLETED}
    assert {run.kind for run in runs} == {"schedule"}

    assert fleet.flow.schedules.run_now("pulse") is None  # although it is paused
    fleet.wait(lambda: fleet.ticks()[-1].by_hand, "the tick by hand")
    fleet.wait_over()
    second.signal(signal.SIGTERM)
    assert second.wait_exit() == 0
    assert violations(fleet.database_url) == {}
