"""What processes without workers leave behind when they die, and the end of whoever waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from flowstone import FlowStone, Settings, asset
from flowstone.core.job import Job
from flowstone.core.outcome import PROCESS_LOST
from flowstone.core.state import State
from flowstone.core.step import NewRun, NewStep, PlacedStep
from flowstone.errors import StepCancelledError
from flowstone.testing.marks import wait_until

LEASE_SECONDS = 0.5
NAMES = ("first", "slow", "last")


@asset
def first() -> int:
    return 1


@asset
def slow(first: int) -> int:
    return first + 1


@asset
def last(slow: int) -> int:
    return slow + 1


@pytest.fixture
def flow(database_url: str) -> Iterator[FlowStone]:
    settings = Settings(database_url=database_url, executor="sync", lease_seconds=LEASE_SECONDS, beat_seconds=0.1)
    with FlowStone([first, slow, last], settings=settings) as made:
        yield made


class Other:
    """Another process, as far as the tables know: it has placed a run, and maybe begun a step of it."""

    def __init__(self, flow: FlowStone, url: str, *, begins: bool = True) -> None:
        settings = Settings(database_url=url, executor="sync", lease_seconds=LEASE_SECONDS, beat_seconds=0.1)
        self.url = url
        self.flow = FlowStone([first, slow, last], settings=settings)
        self.store = self.flow.parts.store
        run = NewRun(
            id="other", kind="materialize_all", selection="last", executor="sync", created_at=datetime.now(UTC)
        )
        steps = [NewStep(name, "", (at - 1,) if at else ()) for at, name in enumerate(NAMES)]
        self.placed: list[PlacedStep] = self.store.ledger.open_run(run, steps)
        if begins:
            assert self.store.ledger.claim([self.placed[0].id], now=datetime.now(UTC))

    @property
    def lease(self) -> str:
        return self.store.heartbeat.worker_id  # type: ignore[attr-defined]

    def die_when_joined(self) -> None:
        """Be killed as soon as a run waits for its steps."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            joins = "SELECT count(*) > 0 FROM flowstone.run_joins"
            assert wait_until(lambda: bool(connection.execute(joins).fetchone()[0]))  # type: ignore[index]
        self.die()

    def die(self) -> None:
        """Be killed with the process that renews the lease: nobody says so, the lease runs out."""
        lease = self.lease
        process = self.store.heartbeat._process  # type: ignore[attr-defined]
        self.store.heartbeat._over.set()  # type: ignore[attr-defined]
        process.kill()
        process.wait()
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                "UPDATE flowstone.workers SET beat_at = beat_at - interval '1 h' WHERE id = %s", [lease]
            )
        self.flow.parts.store.database.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("executor", ["sync", "async"])
def test_who_asks_for_it_ends_what_is_lost_and_goes_on(
    flow: FlowStone, database_url: str, executor: str, begins: bool
) -> None:
    other = Other(flow, database_url, begins=begins)
    other.die()
    record = flow.runs.get("other")
    assert (record.state, record.process_lost) == (State.RUNNING, True)
    assert "which was lost" in flow.why("first")[0]
    assert flow.materialize_all("last", executor=executor).value == 3
    record = flow.runs.get("other")
    assert record.state is (State.FAILED if begins else State.CANCELLED)
    assert not record.process_lost
    assert {flow.runs.step(step.id).error_type for step in other.placed} == (
        {PROCESS_LOST, None} if begins else {PROCESS_LOST}
    )
    assert all(run.state.is_terminal for run in flow.runs.latest())


@pytest.mark.parametrize("verb", ["materialize", "materialize_all"])
def test_who_waits_for_it_goes_on_too(flow: FlowStone, database_url: str, verb: str) -> None:
    other = Other(flow, database_url)
    dying = threading.Thread(target=other.die_when_joined)
    dying.start()
    if verb == "materialize":
        assert flow.materialize("first").value == 1
    else:
        result = flow.materialize_all("last")
        assert (result.ok, result.value) == (True, 3)
        joined = flow.runs.get(flow.runs.get(result.run_id).retry_of or "")
        assert joined.state is State.FAILED
    dying.join()
    assert all(run.state.is_terminal for run in flow.runs.latest())


def test_a_cancel_and_a_retry_reach_what_is_lost(flow: FlowStone, database_url: str) -> None:
    other = Other(flow, database_url)
    other.die()
    assert flow.cancel_job(str(other.placed[0].id)) is State.CANCELLED
    assert flow.runs.cancel("other").state in (State.CANCELLED, State.FAILED)
    assert flow.runs.retry("other").ok
    assert flow.load("last") == 3


def test_a_retry_ends_what_is_lost_by_itself(flow: FlowStone, database_url: str) -> None:
    Other(flow, database_url).die()
    assert flow.runs.retry("other").ok
    assert flow.load("last") == 3


def test_what_a_living_process_holds_is_left_alone(flow: FlowStone, database_url: str) -> None:
    other = Other(flow, database_url)
    steps = [step.id for step in other.placed]
    assert flow.parts.store.end_lost(steps) is False
    assert flow.runs.get("other").process_lost is False
    assert flow.why("first")[0].startswith("it is running on")
    other.flow.close()
    assert flow.parts.store.end_lost(steps) is True


def test_a_client_that_waits_survives_a_database_that_goes_away(flow: FlowStone, database_url: str) -> None:
    job: Job = flow.schedule("first", executor="oban")
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            flow.runs.wait_for(job)
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    elsewhere = psycopg.conninfo.make_conninfo(database_url, dbname="postgres")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        listens = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND query ILIKE '%%LISTEN%%'"
        assert wait_until(lambda: connection.execute(listens, [name]).fetchone() is not None)
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        time.sleep(2.0)
        assert waiting.is_alive()
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert flow.cancel_job(job) is State.CANCELLED
    waiting.join(60)
    assert [type(error) for error in raised] == [StepCancelledError]


def test_the_error_after_a_long_outage_names_what_was_waited_for(
    flow: FlowStone, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowstone.stores.postgres.catalog._AWAY_SECONDS", 0.0)
    job = flow.schedule("first", executor="oban")
    store = flow.parts.store
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    elsewhere = psycopg.conninfo.make_conninfo(database_url, dbname="postgres")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            with pytest.raises(
                ConnectionError, match=f"while this waited for run {job.run_id}; .*`flowstone status"
            ):
                store.catalog.wait([], run_id=job.run_id, timeout_seconds=5.0)
        finally:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
