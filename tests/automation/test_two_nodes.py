"""Nodes that come and go over a simulated year on real PostgreSQL: each instant of each schedule once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from tests.stores.conformance.automations import SetClock

from flowstone import Schedule, asset
from flowstone.core.automation.record import PreparedRun, TickState
from flowstone.core.automation.sensor import RunRequest
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions import encode_partition
from flowstone.core.step import NewRun, NewStep
from flowstone.engine.automation.loop import AutomationLoop
from flowstone.engine.automation.schedules import ScheduleEvaluator
from flowstone.stores.postgres.store import CheckedDatabase, PostgresStore

YEAR = datetime(2024, 1, 1, tzinfo=UTC)
_TIMEOUT_SECONDS = 60.0


@asset
def report() -> int:
    return 1


GRAPH = AssetGraph([report])


def prepare(request: RunRequest, *, run_id: str, kind: str, now: datetime | None = None) -> PreparedRun:
    """Plan a run of one step for the queue."""
    assert now is not None
    run = NewRun(id=run_id, kind=kind, selection="report", executor="oban", created_at=now, durable=True)
    return PreparedRun(run, [NewStep("report", encode_partition(run_id), forced=True)])


SCHEDULES = [
    Schedule("report", "30 2 * * *", name="daily-berlin", timezone="Europe/Berlin", catch_up="all"),
    Schedule("report", "30 2 * * *", name="daily-new-york", timezone="America/New_York", catch_up="all"),
    Schedule("report", "15 2 * * *", name="daily-lord-howe", timezone="Australia/Lord_Howe", catch_up="all"),
    # every hour of the months in which the clock is changed
    Schedule("report", "0 * * 3,10 *", name="hourly", timezone="Europe/Berlin", catch_up="all"),
    Schedule("report", "0 6 * * *", name="latest", timezone="Europe/Berlin", catch_up="latest"),
    Schedule("report", "0 6 * * *", name="skip", timezone="Europe/Berlin", catch_up="skip"),
]


class Node:
    """A node of a fleet, with connections of its own."""

    def __init__(self, url: str, clock: SetClock) -> None:
        self.store = PostgresStore(CheckedDatabase(url), now=clock)
        evaluators = [ScheduleEvaluator(schedule, GRAPH, prepare) for schedule in SCHEDULES]
        self.loop = AutomationLoop(evaluators, self.store.automations, poll_seconds=0.005)
        self.loop.start()

    def stop(self) -> None:
        assert self.loop.stop()
        self.store.close()


@contextmanager
def watching(url: str, clock: SetClock) -> Iterator[PostgresStore]:
    store = PostgresStore(CheckedDatabase(url), now=clock)
    try:
        yield store
    finally:
        store.close()


def caught_up(store: PostgresStore, clock: SetClock) -> bool:
    records = store.automations.records()
    return len(records) == len(SCHEDULES) and all(
        record.due_at is not None and record.due_at > clock.at for record in records
    )


def settle(store: PostgresStore, clock: SetClock) -> None:
    """Wait until everything that is due has been evaluated."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not caught_up(store, clock):
        assert time.monotonic() < deadline, store.automations.records()
        time.sleep(0.002)


@pytest.mark.slow
def test_each_instant_of_a_year_once_with_nodes_that_come_and_go(database_url: str) -> None:
    clock = SetClock(YEAR)
    with watching(database_url, clock) as store:
        nodes = [Node(database_url, clock), Node(database_url, clock)]
        settle(store, clock)
        # time goes on in leaps, so that instants are met, missed, and met by a node that started over them
        for leap in range(53):
            if leap % 10 == 4:
                nodes.pop(0).stop()
                nodes.append(Node(database_url, clock))
            clock.forward(7 * 86_400)
            settle(store, clock)
        for node in nodes:
            node.stop()
        _check_once(store, clock.at)
        _check_changes_of_the_clock(store)
        _check_policies(store, clock.at)


def _check_once(store: PostgresStore, until: datetime) -> None:
    for schedule in SCHEDULES[:4]:
        ticks = store.automations.ticks(schedule.id, limit=10_000)[::-1]
        assert [tick.at for tick in ticks] == list(schedule.times.between(YEAR, until)), schedule.name
        assert {tick.state for tick in ticks} == {TickState.REQUESTED}
        assert all(len(tick.run_ids) == 1 for tick in ticks)
    with store.connection() as connection:
        counted = connection.execute(
            "SELECT count(*), count(DISTINCT run_id) FROM flowstone.ticks, unnest(run_ids) AS run_id"
        ).fetchone()
        runs = connection.execute("SELECT count(*) FROM flowstone.runs").fetchone()
        jobs = connection.execute("SELECT count(*) FROM public.oban_jobs").fetchone()
    assert counted is not None
    assert runs is not None
    assert counted[0] == counted[1] == runs[0]
    assert jobs == runs  # each run has its one job on the queue


def _shown(store: PostgresStore, name: str, day: str) -> list[str]:
    schedule = next(one for one in SCHEDULES if one.name == name)
    shown = [
        tick.at.astimezone(ZoneInfo(schedule.timezone))
        for tick in store.automations.ticks(schedule.id, limit=10_000)
    ]
    return [at.strftime("%H:%M%z") for at in reversed(shown) if at.date().isoformat() == day]


def _check_changes_of_the_clock(store: PostgresStore) -> None:
    assert _shown(store, "daily-berlin", "2024-03-31") == ["03:00+0200"]
    assert _shown(store, "daily-berlin", "2024-10-27") == ["02:30+0200"]
    assert _shown(store, "daily-new-york", "2024-03-10") == ["03:00-0400"]
    assert _shown(store, "daily-new-york", "2024-11-03") == ["02:30-0500"]
    assert _shown(store, "daily-lord-howe", "2024-10-06") == ["02:30+1100"]
    assert _shown(store, "daily-lord-howe", "2024-04-07") == ["02:15+1030"]
    spring, autumn = (
        _shown(store, "hourly", "2024-03-31"),
        _shown(store, "hourly", "2024-10-27"),
    )
    assert (len(spring), spring[:3]) == (23, ["00:00+0100", "01:00+0100", "03:00+0200"])
    assert (len(autumn), autumn[:4]) == (25, ["00:00+0200", "01:00+0200", "02:00+0200", "02:00+0100"])


def _check_policies(store: PostgresStore, until: datetime) -> None:
    latest, skip = SCHEDULES[4:]
    for schedule, state in ((latest, TickState.REQUESTED), (skip, TickState.SKIPPED)):
        ticks = store.automations.ticks(schedule.id, limit=10_000)[::-1]
        runs = [tick for tick in ticks if tick.state is TickState.REQUESTED]
        missed = sum(int((tick.reason or "0").split()[0]) for tick in ticks if tick.state is TickState.SKIPPED)
        assert len(runs) + missed == len(list(schedule.times.between(YEAR, until)))
        assert state in {tick.state for tick in ticks}
        assert all(before.at < after.at for before, after in pairwise(ticks))
    # one run for each leap of a week, on its last morning
    assert len([tick for tick in store.automations.ticks(latest.id, limit=10_000) if tick.run_ids]) == 53


@pytest.mark.slow
def test_many_nodes_that_look_at_the_same_moment_make_one_run_each(database_url: str) -> None:
    clock = SetClock(YEAR)
    evaluators = {one.id: one for one in (ScheduleEvaluator(schedule, GRAPH, prepare) for schedule in SCHEDULES)}

    def node(store: PostgresStore, together: threading.Barrier) -> None:
        together.wait()
        for one in store.automations.take(list(evaluators), lease_seconds=60, limit=len(evaluators)):
            for conclusion in evaluators[one.record.id].evaluate(one):
                assert store.automations.conclude(one, conclusion).accepted

    with watching(database_url, clock) as store:
        store.automations.declare(list(evaluators))
        for _ in range(3):
            clock.forward(timedelta(days=1).total_seconds())
            together = threading.Barrier(4)
            threads = [threading.Thread(target=node, args=(store, together)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for schedule in SCHEDULES[:3]:
            ticks = store.automations.ticks(schedule.id, limit=100)[::-1]
            assert [tick.at for tick in ticks] == list(schedule.times.between(YEAR, clock.at))
