"""A server that dies, connections that are cut, queues that are emptied: nothing is lost, nothing twice."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.fault_app import ITEMS
from tests.faults.fleet import MAX_WAIT_SECONDS, Fleet, Worker, check
from tests.faults.invariants import violations
from tests.faults.proxy import Harm, Proxy, proxy_to
from tests.worker_app import LEASE_SECONDS

from flowstone.errors import DatabaseUnavailableError
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres

RESUME_SECONDS = 30.0


def crash(server: EmbeddedPostgres) -> None:
    """Stop a server at once, as `pg_ctl stop -m immediate` does, and wait until it is gone."""
    pid = server.server_pid
    assert pid is not None
    os.kill(pid, signal.SIGQUIT)
    check(lambda: not Path(f"/proc/{pid}").exists(), lambda: "the server did not end")


def completed(fleet: Fleet) -> int:
    try:
        return int(fleet.rows("SELECT count(*) FROM flowstone.steps WHERE state = 'completed'")[0][0])
    except DatabaseUnavailableError:
        return -1


def complaints(worker: Worker) -> list[str]:
    return [line for line in worker.message.splitlines() if " WARNING " in line or " ERROR " in line]


def test_crashes_of_the_server_under_load(own_server: EmbeddedPostgres, own_fleet: Fleet) -> None:
    own_fleet.start(2, queues={"backfill": 10})
    run = own_fleet.place_many("+clean", 1000)
    for reached in (200, 600, 1000, 1400):
        own_fleet.wait(lambda minimum=reached: completed(own_fleet) >= minimum, f"{reached} steps")
        crash(own_server)
        own_server.start()
        before, began = completed(own_fleet), time.monotonic()
        own_fleet.wait(lambda minimum=before: completed(own_fleet) > minimum, "work to go on")
        print(f"resumed {time.monotonic() - began:.2f} s after the server was back")
        assert time.monotonic() - began < RESUME_SECONDS
    own_fleet.wait_over([run])
    assert completed(own_fleet) == 2000
    assert own_fleet.rows("SELECT count(*) FROM flowstone.attempts WHERE state = 'completed'") == [(2000,)]
    print(f"2000 steps, 4 crashes, {len(own_fleet.events('start'))} starts")


def test_a_database_that_is_away_for_a_while(own_server: EmbeddedPostgres, own_fleet: Fleet) -> None:
    (worker,) = own_fleet.start()
    job = own_fleet.flow.schedule("gated", partition=ITEMS[0])
    own_fleet.wait_event("start", "gated")
    crash(own_server)
    stopped_at = time.monotonic()
    own_fleet.open_gate(ITEMS[0])
    check(lambda: time.monotonic() - stopped_at > 10.0, lambda: "ten seconds")
    assert worker.alive
    own_server.start()
    began = time.monotonic()
    own_fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    own_fleet.place_many("quick", 20)
    own_fleet.wait(lambda: len(own_fleet.events("end", "quick")) == 20, "new work")
    print(f"resumed {time.monotonic() - began:.2f} s after the server was back")
    assert time.monotonic() - began < RESUME_SECONDS
    # the value was computed once and committed when the database was back
    assert len(own_fleet.events("start", "gated")) == 1
    assert "Traceback" not in worker.message
    lines = complaints(worker)
    assert 1 <= len(lines) <= 12, "\n".join(lines)


def test_only_the_listening_connections_are_cut(fleet: Fleet) -> None:
    fleet.start(2)
    for number in range(5):
        cut = fleet.rows(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND query ILIKE 'LISTEN%%'"""
        )
        assert cut or number
        began = time.monotonic()
        assert fleet.flow.materialize("quick", partition=ITEMS[number]).value == ITEMS[number]
        assert time.monotonic() - began < RESUME_SECONDS
    assert all(worker.alive for worker in fleet.workers)


def test_all_backends_are_terminated_under_load(fleet: Fleet) -> None:
    fleet.start(2, queues={"backfill": 6})
    run = fleet.place_many("+clean", 150)
    for reached in (50, 120, 200):
        fleet.wait(lambda minimum=reached: completed(fleet) >= minimum, f"{reached} steps")
        fleet.rows(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )
    fleet.wait_over([run])
    assert completed(fleet) == 300


def test_jobs_are_deleted_at_rest(fleet: Fleet) -> None:
    fleet.place_many("quick", 20)
    later = fleet.flow.schedule("gated", partition=ITEMS[0])
    fleet.execute("TRUNCATE oban_jobs")
    assert set(fleet.states("quick")) == {"pending"}
    assert fleet.flow.job_status(later).value == "pending"
    fleet.open_gate(ITEMS[0])
    fleet.start()
    fleet.wait_over()
    fleet.execute("DELETE FROM oban_jobs")
    assert set(fleet.states("quick")) == {"completed"}
    assert len(fleet.events("end", "quick")) == 20
    assert [step.state.value for step in fleet.flow.runs.steps(later.run_id)] == ["completed"]


def test_jobs_are_deleted_under_load(fleet: Fleet) -> None:
    fleet.start(2, queues={"backfill": 6, "assets": 2})
    fleet.flow.schedule("gated", partition=ITEMS[0])
    fleet.wait_event("start", "gated")
    run = fleet.place_many("+clean", 150)
    for number, reached in enumerate((30, 100, 180, 250)):
        fleet.wait(lambda minimum=reached: completed(fleet) >= minimum, f"{reached} steps")
        fleet.execute("TRUNCATE oban_jobs" if number % 2 else "DELETE FROM oban_jobs")
    fleet.open_gate(ITEMS[0])
    fleet.wait_over()
    assert run
    assert completed(fleet) == 301


def test_another_oban_rescues_a_running_job_by_its_age(fleet: Fleet) -> None:
    """Another program runs plain Oban on the same tables, whose rescue knows nothing of leases."""
    fleet.start(2)
    job = fleet.flow.schedule("gated", partition=ITEMS[0])
    fleet.wait_event("start", "gated")
    fleet.execute("UPDATE oban_jobs SET state = 'available' WHERE state = 'executing'")
    fleet.wait(lambda: fleet.rows("SELECT 1 FROM oban_jobs WHERE state = 'executing'"), "the job to be put right")
    fleet.open_gate(ITEMS[0])
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert len(fleet.events("start", "gated")) == 1
    assert fleet.rows("SELECT state::text, attempt FROM oban_jobs") == [("completed", 1)]


def test_a_step_that_waits_for_inputs_loses_its_job(fleet: Fleet) -> None:
    """It looked for its inputs on a worker, and was put back until they are there."""
    fleet.start()
    job = fleet.flow.schedule("clean", partition=ITEMS[0])
    fleet.wait(lambda: fleet.flow.job_status(job).value == "waiting", "the step to wait")
    fleet.execute("DELETE FROM oban_jobs")
    fleet.flow.materialize("raw", partition=ITEMS[0])
    assert fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS).value == ITEMS[0].upper()


@pytest.fixture
def proxy(database_url: str) -> Iterator[Proxy]:
    # short, because the path of a socket may have 107 characters
    with tempfile.TemporaryDirectory(prefix="fs-") as directory, proxy_to(database_url, Path(directory)) as proxy:
        yield proxy


@pytest.mark.parametrize("harm", [Harm.CUT_BEFORE, Harm.CUT_AFTER])
def test_connections_are_cut_around_commits(proxy: Proxy, fleet: Fleet, harm: Harm) -> None:
    fleet.start(2, url=proxy.dsn, queues={"backfill": 6})
    proxy.set(harm, share=0.25)
    run = fleet.place_many("+clean", 60)
    fleet.wait_over([run])
    proxy.set(Harm.NONE)
    print(f"{proxy.harmed} commits were {harm.value}; {len(fleet.events('start'))} starts of 120 steps")
    assert proxy.harmed >= 5
    assert completed(fleet) == 120


def test_a_connection_hangs_during_a_commit(proxy: Proxy, fleet: Fleet) -> None:
    """The network swallows what belongs to one connection: the others renew the lease and go on."""
    (worker,) = fleet.start(url=proxy.dsn)
    job = fleet.flow.schedule("gated", partition=ITEMS[0])
    fleet.wait_event("start", "gated")
    proxy.set(Harm.HOLD)
    fleet.open_gate(ITEMS[0])
    fleet.wait(lambda: proxy.harmed, "the commit to hang")
    began = time.monotonic()
    check(lambda: time.monotonic() - began > 1.5 * LEASE_SECONDS, lambda: "a lease and a half")
    assert not fleet.rows("SELECT 1 FROM flowstone.workers WHERE lost_at IS NOT NULL")
    proxy.set(Harm.NONE)
    fleet.flow.runs.wait_for(job, timeout_seconds=MAX_WAIT_SECONDS)
    assert worker.alive
    assert len(fleet.events("start", "gated")) == 1
    assert violations(fleet.database_url) == {}
