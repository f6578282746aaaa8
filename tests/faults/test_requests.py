"""Requests that meet: joins, cancels, stops, older workers, limits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from itertools import islice

from tests.faults import fault_app
from tests.faults.fault_app import ITEMS, NEWER
from tests.faults.fleet import MAX_WAIT_SECONDS, ROOT, Event, Fleet, Worker

from flowstone.core.state import State

CLIENT = """
import json, os, sys
from tests.faults.fault_app import ITEMS, make_flow
flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
print("ready", flush=True)
for line in sys.stdin:
    made = flow.materialize("brief", partition=ITEMS[int(line)])
    print(json.dumps([made.step_id, made.deduplicated or made.state.value == "reused"]), flush=True)
"""


class Client:
    """A process that materializes one partition for each line it is given."""

    def __init__(self, fleet: Fleet) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=fleet.environment(),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def test_two_processes_ask_for_the_same_at_once(fleet: Fleet) -> None:
    fleet.start(2)
    clients = [Client(fleet), Client(fleet)]
    try:
        assert [client.answer() for client in clients] == ["ready\n", "ready\n"]
        joined = 0
        for number in range(50):
            for client in clients:
                client.ask(number)
            (step, first), (other, second) = (json.loads(client.answer()) for client in clients)
            if step == other or first or second:
                joined += 1
        assert joined == 50
    finally:
        for client in clients:
            client.process.communicate()
    assert sorted(event.key for event in fleet.events("start", "brief")) == ITEMS[:50]
    assert fleet.rows("SELECT count(*) FROM flowstone.steps WHERE asset = 'brief' AND state = 'completed'") == [
        (50,)
    ]


def test_cancel_before_it_starts_and_twice(fleet: Fleet) -> None:
    job = fleet.flow.schedule("quick", partition=ITEMS[0])
    assert fleet.flow.cancel_job(job) is State.CANCELLED
    assert fleet.flow.cancel_job(job) is State.CANCELLED
    fleet.start()
    assert fleet.flow.materialize("quick", partition=ITEMS[1]).value == ITEMS[1]
    assert fleet.events("start", "quick", ITEMS[0]) == []
    assert fleet.flow.job_status(job) is State.CANCELLED


def test_cancel_a_running_step_through_its_token(fleet: Fleet) -> None:
    fleet.start()
    job = fleet.flow.schedule("gated", partition=ITEMS[0])
    fleet.wait_event("start", "gated")
    assert fleet.flow.cancel_job(job) is State.CANCELLING
    assert fleet.flow.cancel_job(job) in (State.CANCELLING, State.CANCELLED)
    fleet.wait_over([job.run_id])
    assert fleet.flow.job_status(job) is State.CANCELLED
    assert fleet.events("end", "gated") == []


def test_cancel_a_running_step_in_a_process(fleet: Fleet) -> None:
    (worker,) = fleet.start()
    job = fleet.flow.schedule("apart", partition=ITEMS[0])
    fleet.wait_event("start", "apart")
    assert fleet.flow.cancel_job(job) is State.CANCELLING
    fleet.wait_over([job.run_id])
    assert fleet.flow.job_status(job) is State.CANCELLED
    assert worker.alive


def test_cancel_what_has_just_finished(fleet: Fleet) -> None:
    """A cancel that arrives while it ends has one answer, and that answer stays."""
    fleet.start()
    for number in range(10):
        job = fleet.flow.schedule("quick", partition=ITEMS[number])
        if number % 2:
            fleet.wait(lambda key=ITEMS[number]: fleet.events("end", "quick", key), "its end")
        fleet.flow.cancel_job(job)
        fleet.wait_over([job.run_id])
        state = fleet.flow.job_status(job)
        assert state in (State.COMPLETED, State.CANCELLED)
        assert fleet.flow.cancel_job(job) is state
    done = fleet.flow.schedule("quick", partition=ITEMS[20])
    fleet.flow.runs.wait_for(done, timeout_seconds=MAX_WAIT_SECONDS)
    assert fleet.flow.cancel_job(done) is State.COMPLETED


def test_cancelled_work_of_a_lost_worker_is_not_run_again(fleet: Fleet) -> None:
    (first,) = fleet.start()
    job = fleet.flow.schedule("stubborn", partition=ITEMS[0])
    fleet.wait_event("start", "stubborn")
    fleet.flow.cancel_job(job)
    first.kill()
    fleet.start()
    fleet.wait_over([job.run_id])
    assert fleet.flow.job_status(job) is State.CANCELLED
    assert len(fleet.events("start", "stubborn")) == 1


def test_sigterm_releases_what_outlives_the_grace(fleet: Fleet) -> None:
    (first,) = fleet.start()
    job = fleet.flow.schedule("stubborn", partition=ITEMS[0])
    fleet.wait_event("start", "stubborn")
    (second,) = fleet.start()
    first.signal(signal.SIGTERM)
    assert first.wait_exit() == 0
    again = fleet.wait_event("start", "stubborn", count=2)[1]
    assert (again.pid, again.attempt) == (second.pid, 1)
    fleet.open_gate(ITEMS[0])
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert fleet.attempts("stubborn") == [(1, "completed", None)]


def test_a_second_signal_leaves_at_once(fleet: Fleet) -> None:
    (first,) = fleet.start()
    job = fleet.flow.schedule("stubborn", partition=ITEMS[0])
    fleet.wait_event("start", "stubborn")
    first.signal(signal.SIGTERM)
    fleet.wait(lambda: "Stopping" in first.message, "the first signal to be taken")
    first.signal(signal.SIGTERM)
    # one that waits for its grace leaves with 0, and says another reason
    assert first.wait_exit() == 1
    assert "Second signal: leaving at once" in first.message
    fleet.start()
    fleet.wait_event("start", "stubborn", count=2)
    fleet.open_gate(ITEMS[0])
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert fleet.attempts("stubborn") == [(1, "failed", "WorkerLost"), (2, "completed", None)]


def test_an_older_worker_leaves_what_it_does_not_know_to_others(fleet: Fleet) -> None:
    (old,) = fleet.start(**{NEWER: ""})
    job = fleet.flow.schedule("newer")
    fleet.wait(lambda: "A step of newer is left to a worker" in old.message, "that it is left to others")
    assert fleet.flow.job_status(job) in (State.SCHEDULED, State.PENDING, State.RUNNING)
    new: Worker = fleet.start()[0]
    old.signal(signal.SIGTERM)
    assert fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS).value == "new"
    assert [event.pid for event in fleet.events("start", "newer")] == [new.pid]
    assert fleet.attempts("newer") == [(1, "completed", None)]


def max_at_once(events: list[Event]) -> int:
    """Return how many attempts ran at the same time at most, by their own clocks."""
    changes = sorted((event.at, 1 if event.event == "start" else -1) for event in events)
    running = maximum = 0
    for _, change in changes:
        running += change
        maximum = max(maximum, running)
    return maximum


def test_a_window_holds_for_the_fleet(fleet: Fleet) -> None:
    fleet.start(2, queues={"backfill": 16})
    run = fleet.place_many("brief", 1000, max_concurrency=10)
    fleet.wait_over([run])
    events = fleet.events(asset="brief")
    assert len(events) == 2000
    assert 2 <= max_at_once(events) <= 10
    assert {event.pid for event in events} == {worker.pid for worker in fleet.workers}


def test_interactive_work_overtakes_a_giant_backfill(fleet: Fleet) -> None:
    keys = list(islice(fault_app.hours.keys(datetime.now(UTC)), 100_000))
    tracemalloc.start()
    run = fleet.flow.backfill("wide", partitions=keys, executor_opts={"wait_timeout": 0.001}).run_id
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * 2**20
    assert fleet.flow.runs.get(run).total == 100_000
    assert fleet.rows("SELECT (SELECT count(*) FROM oban_jobs), (SELECT count(*) FROM flowstone.steps)") == [
        (0, 0)
    ]
    fleet.start(1)
    interactive = {"executor_opts": {"wait_timeout": MAX_WAIT_SECONDS}}
    assert fleet.flow.materialize("quick", partition="i0000", **interactive).value == "i0000"
    # the very last one of the backfill, which finds it there when it comes so far
    last = fleet.flow.materialize("wide", partition=keys[-1], **interactive)
    assert (last.run_id != run, last.deduplicated) == (True, False)
    record = fleet.flow.runs.get(run)
    assert record.state is State.RUNNING
    assert record.done < 100_000
    fleet.flow.runs.cancel(run)
    fleet.wait_over([run])
    assert fleet.flow.runs.get(run).state is State.CANCELLED
