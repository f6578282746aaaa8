"""Workers that are killed, stopped or starved: what they held is run again, and only then."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from tests.faults.fault_app import ITEMS, LEASE
from tests.faults.fleet import MAX_WAIT_SECONDS, Fleet, Worker
from tests.worker_app import LEASE_SECONDS, SWEEP_SECONDS

from flowstone.core.state import State
from flowstone.testing.injection import AFTER_STORE, BEFORE_RUN

TIMEOUT_SECONDS = 15.0
"""For polls and scheduling of a busy machine, on top of lease and sweep."""


def test_sigkill_in_the_middle_of_an_asset(fleet: Fleet) -> None:
    first, second = fleet.start(2)
    job = fleet.flow.schedule("gated", partition="i0000")
    victim = fleet.wait_event("start", "gated")[0].pid
    killed_at = time.monotonic()
    (first if first.pid == victim else second).kill()
    again = fleet.wait_event("start", "gated", count=2)[1]
    took = again.at - killed_at
    print(f"from SIGKILL to the next attempt: {took:.2f} s")
    assert again.pid != victim
    assert again.attempt == 2
    assert took <= LEASE_SECONDS + SWEEP_SECONDS + TIMEOUT_SECONDS
    fleet.open_gate("i0000")
    assert fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS).value == "i0000"
    assert fleet.attempts("gated") == [(1, "failed", "WorkerLost"), (2, "completed", None)]
    assert "worker" in (fleet.flow.runs.attempts(job)[0].error or "")
    assert len(fleet.events("end", "gated")) == 1


@pytest.mark.parametrize("point", [BEFORE_RUN, AFTER_STORE])
def test_sigkill_at_a_point_of_the_step(fleet: Fleet, point: str) -> None:
    fleet.kill_points.arm(point, "raw")
    fleet.start(2)
    run = fleet.flow.materialize_all("clean", partition="i0001")
    assert run.ok
    assert not fleet.kill_points.armed(point, "raw")
    assert sum(not worker.alive for worker in fleet.workers) == 1
    assert fleet.attempts("raw") == [(1, "failed", "WorkerLost"), (2, "completed", None)]
    assert fleet.attempts("clean") == [(1, "completed", None)]
    ran = [event.attempt for event in fleet.events("end", "raw")]
    assert ran == ([2] if point == BEFORE_RUN else [1, 2])
    assert fleet.flow.materialize("clean", partition="i0001").value == "I0001"  # reused


def test_sigkill_costs_what_waited_for_a_thread_no_attempt(fleet: Fleet) -> None:
    """Short steps are taken ahead of their turn; those that had not started are released with their attempt."""
    queues = {"assets": 1, "backfill": 1}
    (worker,) = fleet.start(queues=queues)
    fleet.wait_over([fleet.place_many("quick", 150)])  # it learns that steps are short
    fleet.flow.queues.pause("backfill")
    gated = fleet.place_many("gated", 1, priority=0)
    behind = fleet.place_many("raw", 6)
    fleet.flow.queues.resume("backfill")
    fleet.wait_event("start", "gated")
    worker.kill()
    assert "running" in fleet.states("raw")
    killed_at = time.monotonic()
    fleet.start(queues=queues)
    again = fleet.wait_event("start", "gated", count=2)[1]
    print(f"from SIGKILL to the next attempt: {again.at - killed_at:.2f} s")
    fleet.open_gate(ITEMS[0])
    fleet.wait_over([gated, behind])
    assert fleet.attempts("gated") == [(1, "failed", "WorkerLost"), (2, "completed", None)]
    assert fleet.attempts("raw") == [(1, "completed", None)] * 6


def test_sigkill_while_the_children_are_released(fleet: Fleet) -> None:
    """The worker dies inside the completing transaction, when it has inserted the child's job."""
    fleet.execute(
        """CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.args ->> 'asset' = 'clean' THEN PERFORM pg_advisory_xact_lock_shared(42); END IF;
            RETURN NEW; END $$"""
    )
    fleet.execute("CREATE TRIGGER hold AFTER INSERT ON oban_jobs FOR EACH ROW EXECUTE FUNCTION hold()")
    (worker,) = fleet.start()
    with fleet.holding_lock(42):
        run = fleet.place("clean", "i0002")
        fleet.wait(fleet.waiting_for_lock, "the committing transaction to wait")
        worker.kill()
    fleet.wait(lambda: fleet.states("raw") == ["running"], "the transaction to be rolled back")
    fleet.start()
    fleet.wait_over([run])
    assert fleet.attempts("raw") == [(1, "failed", "WorkerLost"), (2, "completed", None)]
    assert fleet.attempts("clean") == [(1, "completed", None)]


def test_a_step_much_longer_than_the_lease_is_started_once(fleet: Fleet) -> None:
    fleet.start(2, **{LEASE: "1.0"})
    began = time.monotonic()
    job = fleet.flow.schedule("gated", partition="i0003")
    fleet.wait_event("start", "gated")
    # twenty sweeps of both workers go by meanwhile: they are what might start it again
    fleet.wait(lambda: time.monotonic() - began > 10.0, "ten leases")
    assert fleet.states("gated") == ["running"]
    fleet.open_gate("i0003")
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert len(fleet.events("start", "gated")) == 1
    assert fleet.attempts("gated") == [(1, "completed", None)]


def test_the_heartbeat_process_is_killed(fleet: Fleet) -> None:
    """Its worker lives: another one is started under the same lease, and the step goes on."""
    (worker,) = fleet.start()
    lease = fleet.rows("SELECT id FROM flowstone.workers WHERE kind = 'node'")
    job = fleet.flow.schedule("gated", partition="i0004")
    fleet.wait_event("start", "gated")
    (child,) = fleet.heartbeats(worker)
    os.kill(child, signal.SIGKILL)
    fleet.wait(lambda: fleet.heartbeats(worker) not in ([], [child]), "another heartbeat")
    began = time.monotonic()
    fleet.wait(lambda: time.monotonic() - began > LEASE_SECONDS + 2 * SWEEP_SECONDS, "a lease")
    fleet.open_gate("i0004")
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert fleet.rows("SELECT id FROM flowstone.workers WHERE kind = 'node'") == lease
    assert fleet.attempts("gated") == [(1, "completed", None)]


def test_a_stopped_worker_comes_back_after_its_lease(fleet: Fleet) -> None:
    first, second = fleet.start(2)
    job = fleet.flow.schedule("gated", partition="i0005")
    victim = fleet.wait_event("start", "gated")[0].pid
    stopped: Worker = first if first.pid == victim else second
    stopped.signal(signal.SIGSTOP)
    stopped.wait_stopped()
    again = fleet.wait_event("start", "gated", count=2)[1]
    assert again.pid != victim
    stopped.signal(signal.SIGCONT)
    fleet.open_gate("i0005")
    fleet.wait_event("end", "gated", count=2)
    fleet.wait(lambda: "superseded" in stopped.message, "the stale commit to be refused")
    assert fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS).attempt == 2
    assert fleet.attempts("gated") == [(1, "failed", "WorkerLost"), (2, "completed", None)]
    # it works on, under a new lease
    (second if stopped is first else first).signal(signal.SIGTERM)
    assert fleet.flow.materialize("quick", partition="i0005").value == "i0005"


def test_a_stopped_worker_that_comes_back_takes_nothing_under_its_lost_lease(fleet: Fleet) -> None:
    (stopped,) = fleet.start()
    stopped.signal(signal.SIGSTOP)
    stopped.wait_stopped()
    run = fleet.place_many("gated", 4)
    fleet.start(queues={"other": 1})
    fleet.wait(
        lambda: fleet.rows("SELECT 1 FROM flowstone.workers WHERE lost_at IS NOT NULL"), "the lease to be lost"
    )
    stopped.signal(signal.SIGCONT)
    fleet.wait_event("start", "gated", count=4)
    # the new lease is there, and sweeps look for attempts of the old one
    fleet.wait(lambda: "was taken away" in stopped.message, "the worker to learn of it")
    began = time.monotonic()
    fleet.wait(lambda: time.monotonic() - began > 3 * SWEEP_SECONDS, "some sweeps")
    fleet.open_gate(*ITEMS[:4])
    fleet.wait_over([run])
    assert fleet.attempts("gated") == [(1, "completed", None)] * 4


def test_code_that_holds_the_interpreter_lock(fleet: Fleet) -> None:
    fleet.start(2)
    held = fleet.flow.materialize("holds_lock")
    assert held.value > LEASE_SECONDS
    assert len(fleet.events("start", "holds_lock")) == 1
    assert fleet.attempts("holds_lock") == [(1, "completed", None)]


def test_poison_that_kills_its_worker_ends_after_its_attempts(fleet: Fleet) -> None:
    """A supervisor starts dead workers again; steps that died beside it get through."""
    queues = {"assets": 2, "backfill": 2}
    fleet.start(2, queues=queues)
    beside = fleet.place("gated", ITEMS[0], priority=0)
    fleet.wait_event("start", "gated")
    job = fleet.flow.schedule("poison")
    run = fleet.place_many("quick", 30)
    fleet.supervise(2, until=lambda: len(fleet.events("start", "poison")) == 2, queues=queues)
    fleet.open_gate(ITEMS[0])
    fleet.supervise(2, until=lambda: fleet.flow.job_status(job).is_terminal, queues=queues)
    fleet.wait_over([run, beside])
    assert fleet.states("gated") == ["completed"]
    assert fleet.flow.job_status(job) is State.FAILED
    assert [event.attempt for event in fleet.events("start", "poison")] == [1, 2, 3]
    assert fleet.attempts("poison") == [(n, "failed", "WorkerLost") for n in (1, 2, 3)]
    assert set(fleet.states("quick")) == {"completed"}
    assert sum(worker.process.poll() == 13 for worker in fleet.workers) == 3


def test_poison_in_a_process_of_its_own_leaves_the_worker_alone(fleet: Fleet) -> None:
    (worker,) = fleet.start()
    job = fleet.flow.schedule("poison_apart")
    run = fleet.place_many("quick", 10)
    fleet.wait_over([job.run_id, run])
    assert fleet.flow.job_status(job) is State.FAILED
    assert worker.alive
    assert [row[:2] for row in fleet.attempts("poison_apart")] == [(n, "failed") for n in (1, 2, 3)]
    assert "SIGSEGV" in (fleet.flow.runs.step(job).error or "")
    assert set(fleet.states("quick")) == {"completed"}


def test_an_isolated_function_ends_with_its_worker(fleet: Fleet) -> None:
    (worker,) = fleet.start()
    job = fleet.flow.schedule("apart", partition=ITEMS[0])
    child = fleet.wait_event("start", "apart")[0].pid
    assert child != worker.pid
    worker.kill()
    fleet.wait(lambda: not psutil.pid_exists(child), "the child to end")
    fleet.start()
    fleet.wait_event("start", "apart", count=2)
    fleet.open_gate(ITEMS[0])
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert fleet.attempts("apart") == [(1, "failed", "WorkerLost"), (2, "completed", None)]
