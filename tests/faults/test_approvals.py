"""A request for approval waits for a person, whatever happens to the machines meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.approvals.crew import Askers
from tests.faults.conftest import check_promises
from tests.faults.fault_app import ITEMS
from tests.faults.test_lost_database import crash

from flowstone.core.state import State
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres

QUEUES = {"assets": 2, "checkpoints": 1}


@pytest.fixture
def askers(own_server: EmbeddedPostgres, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Askers]:
    """A fleet of the approval app on a server of its own; the promises hold at the end."""
    crew = Askers(tmp_path, own_server.start())
    try:
        yield crew
        check_promises(crew, request)
    finally:
        crew.close()


@pytest.mark.parametrize("orderly", [True, False], ids=["stopped", "crashed"])
def test_an_approval_outlives_everything(askers: Askers, own_server: EmbeddedPostgres, orderly: bool) -> None:
    """Workers, server and client go and come back; then a person approves, and nothing is computed twice."""
    (worker,) = askers.start(queues=QUEUES)
    run = askers.place("+delivered", ITEMS[0])
    (one,) = askers.requested()
    before = askers.events("start", "bought")
    assert len(before) == 1
    askers.flow.close()
    if orderly:
        worker.signal(signal.SIGTERM)
        assert worker.wait_exit() == 0
        own_server.stop()
    else:
        worker.kill()
        crash(own_server)
    askers.database_url = own_server.start()
    askers.flow = askers.client()
    (still,) = askers.flow.approvals.list()
    assert still == one
    assert askers.flow.job_status(one.step_id) is State.AWAITING_APPROVAL
    askers.start(queues=QUEUES)
    askers.flow.approvals.approve(one.id, by="ann")
    askers.wait_over([run])
    assert askers.flow.load("delivered", partition=ITEMS[0]) == f"{ITEMS[0]} by ann".upper()
    # the part before the gate ran in the first life only: its attempt never reached its end
    starts = askers.events("start", "bought")
    assert [event.pid == before[0].pid for event in starts] == [True, False]
    assert len(askers.events("end", "bought")) == 1
    assert askers.attempts("bought") == [(1, "completed", None)]


def test_the_time_of_a_request_goes_on_while_nobody_works(askers: Askers, own_server: EmbeddedPostgres) -> None:
    """It ended while everything was down; the first worker that comes back notes that."""
    (worker,) = askers.start(queues=QUEUES)
    job = askers.flow.schedule("bought", partition=ITEMS[0])
    (one,) = askers.requested()
    worker.kill()
    askers.execute("UPDATE flowstone.checkpoints SET expires_at = clock_timestamp()")
    askers.execute(
        "UPDATE oban_jobs SET scheduled_at = timezone('UTC', clock_timestamp()) WHERE state = 'scheduled'"
    )
    crash(own_server)
    own_server.start()
    askers.start(queues=QUEUES)
    askers.wait_over([job.run_id])
    assert askers.flow.job_status(job) is State.FAILED
    assert "expired" in (askers.flow.runs.step(job).error or "")
    assert one.id == askers.flow.approvals.get(one.id).id
