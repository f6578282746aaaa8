"""Logs of attempts on workers: live, kept when a worker is killed, never in the way of a commit."""

from __future__ import annotations

from tests.faults.fault_app import ITEMS
from tests.faults.fleet import MAX_WAIT_SECONDS, Fleet

from flowstone.stores.postgres.database import Database
from flowstone.testing.marks import wait_until


def texts(fleet: Fleet, step: int, attempt: int) -> list[str]:
    return [line.text for line in fleet.flow.logs.of(step, attempt).lines]


def test_what_a_killed_worker_logged_is_kept(fleet: Fleet) -> None:
    first, second = fleet.start(2)
    job = fleet.flow.schedule("gated", partition="i0000")
    victim = fleet.wait_event("start", "gated")[0].pid
    assert wait_until(lambda: texts(fleet, job.id, 1) == ["at the gate"], timeout_seconds=MAX_WAIT_SECONDS)
    assert not fleet.flow.logs.of(job, 1).over
    (first if first.pid == victim else second).kill()
    fleet.wait_event("start", "gated", count=2)
    fleet.open_gate("i0000")
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert wait_until(lambda: texts(fleet, job.id, 2) == ["at the gate"], timeout_seconds=MAX_WAIT_SECONDS)
    assert texts(fleet, job.id, 1) == ["at the gate"]


def test_a_log_that_cannot_be_written_delays_no_commit(fleet: Fleet) -> None:
    """The table of logs is locked while steps end."""
    fleet.start(1)
    for item in ITEMS[:20]:
        fleet.open_gate(item)
    with (
        Database(fleet.database_url) as database,
        database.dedicated() as connection,
        connection.transaction(),
    ):
        connection.execute("LOCK TABLE flowstone.logs IN ACCESS EXCLUSIVE MODE")
        run = fleet.place_many("gated", 20)
        fleet.wait_over([run])
        assert fleet.flow.runs.get(run).state.is_success
    step = fleet.flow.runs.steps(run)[-1].id
    assert wait_until(lambda: texts(fleet, step, 1) == ["at the gate"], timeout_seconds=MAX_WAIT_SECONDS)
