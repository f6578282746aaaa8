from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stores.conformance.automations import START, SetClock

import flowstone
from flowstone import DailyPartitions, MultiPartitions, Schedule, StaticPartitions, asset
from flowstone.core.automation.record import PreparedRun, TickRecord, TickState
from flowstone.core.automation.sensor import RunRequest
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions import Partition, encode_partition
from flowstone.core.step import NewRun, NewStep
from flowstone.engine.automation.schedules import Position, ScheduleEvaluator
from flowstone.errors import DatabaseError, DefinitionError, OptionsError, SelectionError
from flowstone.stores.memory import MemoryStore

DAYS = DailyPartitions("2023-12-30", timezone="Europe/Berlin")
HOUR = timedelta(hours=1)


@asset
def plain() -> int:
    return 1


@asset(partitions=DAYS)
def daily() -> int:
    return 1


@asset(partitions=StaticPartitions(["eu", "us"]))
def regional() -> int:
    return 1


@asset(partitions=MultiPartitions(day=DAYS, region=StaticPartitions(["eu", "us"])))
def both() -> int:
    return 1


GRAPH = AssetGraph([plain, daily, regional, both])


def prepare(request: RunRequest, *, run_id: str, kind: str, now: datetime | None = None) -> PreparedRun:
    """Plan a run of one step, as an app would."""
    name = str(request.selection)
    run = NewRun(
        id=run_id, kind=kind, selection=name, executor="sync", created_at=datetime(1999, 1, 1, tzinfo=UTC)
    )
    return PreparedRun(run, [NewStep(name, encode_partition(request.partition), forced=True)])


class Fleet:
    """Nodes that share a store and its clock, and may stop at any moment."""

    def __init__(self, *, prepare: Callable[..., PreparedRun] = prepare) -> None:
        self.clock = SetClock()
        self.store = MemoryStore(now=self.clock)
        self._prepare = prepare

    def evaluate(self, schedule: Schedule, *, conclusions: int | None = None) -> int:
        """Have a node evaluate a schedule if it is due; with `conclusions` it is killed after that many."""
        evaluator = ScheduleEvaluator(schedule, GRAPH, self._prepare)
        self.store.automations.declare([evaluator.id])
        taken = self.store.automations.take([evaluator.id], lease_seconds=30)
        done = 0
        for one in taken:
            for conclusion in evaluator.evaluate(one):
                if done == conclusions:
                    return done
                assert self.store.automations.conclude(one, conclusion).accepted
                done += 1
        return done

    def ticks(self, schedule: Schedule) -> list[TickRecord]:
        """Return all ticks, the oldest first."""
        return self.store.automations.ticks(schedule.id, limit=10**6)[::-1]

    def due_in(self, schedule: Schedule) -> timedelta:
        """Return in what time it is due next."""
        record = self.store.automations.record(schedule.id)
        assert record is not None
        assert record.due_at is not None
        return record.due_at - self.clock.at


def hourly(**options: Any) -> Schedule:
    return Schedule("plain", "0 * * * *", **options)


def test_the_first_evaluation_only_finds_out_when_it_is_due() -> None:
    fleet, schedule = Fleet(), hourly()
    fleet.clock.forward(90)
    fleet.evaluate(schedule)
    assert fleet.ticks(schedule) == []
    assert fleet.due_in(schedule) == HOUR - timedelta(seconds=90)


def test_an_instant_is_a_run_with_an_id_of_its_own() -> None:
    fleet, schedule = Fleet(), hourly(priority=2, max_concurrency=5)
    fleet.evaluate(schedule)
    fleet.clock.forward(3600.5)
    fleet.evaluate(schedule)
    (tick,) = fleet.ticks(schedule)
    assert (tick.at, tick.state, tick.run_ids) == (
        START + HOUR,
        TickState.REQUESTED,
        ("plain@2024-01-01T01:00:00Z",),
    )
    run = fleet.store.catalog.run("plain@2024-01-01T01:00:00Z")
    assert run is not None
    assert run.created_at == fleet.clock.at  # the store's clock, not the node's
    assert fleet.due_in(schedule) == HOUR - timedelta(seconds=0.5)


def test_latest_runs_once_for_all_that_was_missed() -> None:
    fleet, schedule = Fleet(), hourly()
    fleet.evaluate(schedule)
    fleet.clock.forward(5.5 * 3600)
    fleet.evaluate(schedule)
    skipped, run = fleet.ticks(schedule)
    assert (skipped.state, skipped.at) == (TickState.SKIPPED, START + 4 * HOUR)
    assert skipped.reason is not None
    assert skipped.reason.startswith("4 instants were missed, from 2024-01-01T01:00:00+00:00 to 2024-01-01T04")
    assert (run.state, run.at) == (TickState.REQUESTED, START + 5 * HOUR)


def test_skip_runs_only_what_is_met() -> None:
    fleet, schedule = Fleet(), hourly(catch_up="skip")
    fleet.evaluate(schedule)
    fleet.clock.forward(3600 + 59)
    fleet.evaluate(schedule)
    fleet.clock.forward(3600 + 2)  # now 61 s late
    fleet.evaluate(schedule)
    fleet.clock.forward(3600 - 60)
    fleet.evaluate(schedule)
    assert [(tick.at - START, tick.state) for tick in fleet.ticks(schedule)] == [
        (HOUR, TickState.REQUESTED),
        (2 * HOUR, TickState.SKIPPED),
        (3 * HOUR, TickState.REQUESTED),
    ]


def test_skip_is_half_the_period_of_short_ones() -> None:
    fleet, schedule = Fleet(), Schedule("plain", "*/10 * * * * *", catch_up="skip")
    fleet.evaluate(schedule)
    fleet.clock.forward(15)
    fleet.evaluate(schedule)
    fleet.clock.forward(11)
    fleet.evaluate(schedule)
    assert [tick.state for tick in fleet.ticks(schedule)] == [TickState.REQUESTED, TickState.SKIPPED]


def test_all_runs_each_the_oldest_first() -> None:
    fleet, schedule = Fleet(), hourly(catch_up="all")
    fleet.evaluate(schedule)
    fleet.clock.forward(250.5 * 3600)
    assert fleet.evaluate(schedule) == 101  # so many at a time
    assert fleet.due_in(schedule) == timedelta(0)
    fleet.evaluate(schedule)
    fleet.evaluate(schedule)
    assert [tick.at - START for tick in fleet.ticks(schedule)] == [number * HOUR for number in range(1, 251)]
    assert {tick.state for tick in fleet.ticks(schedule)} == {TickState.REQUESTED}
    assert fleet.due_in(schedule) == HOUR / 2


@pytest.mark.parametrize("change", [{"cron": "30 * * * *"}, {"timezone": "Asia/Kolkata"}])
def test_changed_times_hold_from_now_on(change: dict[str, str]) -> None:
    fleet, schedule = Fleet(), hourly(catch_up="all")
    fleet.evaluate(schedule)
    fleet.clock.forward(10.25 * 3600)
    changed = replace(schedule, **change)
    fleet.evaluate(changed)
    assert fleet.ticks(schedule) == []
    fleet.clock.forward(3600)
    fleet.evaluate(changed)
    assert [tick.at for tick in fleet.ticks(schedule)] == [START + 10.5 * HOUR]


def test_what_cannot_be_planned_is_one_failed_tick_and_the_schedule_goes_on() -> None:
    broken = [True]

    def refuses(request: RunRequest, **options: Any) -> PreparedRun:
        if broken:
            broken.clear()
            raise OptionsError("it cannot be done")
        return prepare(request, **options)

    fleet, schedule = Fleet(prepare=refuses), hourly()
    fleet.evaluate(schedule)
    for _ in range(2):
        fleet.clock.forward(3600)
        fleet.evaluate(schedule)
        fleet.evaluate(schedule)
    failed, run = fleet.ticks(schedule)
    assert (failed.state, failed.error) == (TickState.FAILED, "it cannot be done")
    assert run.state is TickState.REQUESTED


def test_a_lost_database_loses_no_instant() -> None:
    def lost(request: RunRequest, **options: Any) -> PreparedRun:
        raise DatabaseError("it went away")

    fleet, schedule = Fleet(prepare=lost), hourly()
    fleet.evaluate(schedule)
    fleet.clock.forward(3600)
    with pytest.raises(DatabaseError):
        fleet.evaluate(schedule)
    assert fleet.ticks(schedule) == []


# --- partitions -------------------------------------------------------------------------------------------


def partition_of(schedule: Schedule, at: datetime) -> tuple[Partition, str | None]:
    return ScheduleEvaluator(schedule, GRAPH, prepare).partition(at)


def test_an_instant_means_the_last_complete_partition() -> None:
    schedule = Schedule("daily", "0 * * * *")
    midnight = datetime(2024, 1, 1, 23, tzinfo=UTC)  # in Berlin
    assert partition_of(schedule, midnight) == (date(2024, 1, 1), None)
    assert partition_of(schedule, midnight - timedelta(seconds=1)) == (date(2023, 12, 31), None)
    assert partition_of(schedule, datetime(2023, 1, 1, tzinfo=UTC))[1] == "no partition was complete yet"


def test_missed_instants_keep_their_own_partitions() -> None:
    fleet, schedule = Fleet(), Schedule("daily", "0 6 * * *", catch_up="all")
    fleet.evaluate(schedule)
    fleet.clock.forward(3 * 86400)
    fleet.evaluate(schedule)
    steps = [fleet.store.catalog.steps(run_id) for tick in fleet.ticks(schedule) for run_id in tick.run_ids]
    assert [step.partition_key for (step,) in steps] == ["d:2023-12-31", "d:2024-01-01", "d:2024-01-02"]


def test_a_function_decides_and_may_decline() -> None:
    def yesterday(at: datetime) -> Partition:
        return at.date() - timedelta(days=1) if at.hour == 3 else None

    schedule = Schedule("daily", "0 * * * *", partition=yesterday, timezone="Europe/Berlin")
    assert partition_of(schedule, datetime(2024, 1, 5, 2, tzinfo=UTC)) == (date(2024, 1, 4), None)
    assert partition_of(schedule, datetime(2024, 1, 5, 3, tzinfo=UTC))[1] is not None


def test_a_function_that_raises_fails_its_instant_only() -> None:
    def raises(at: datetime) -> Partition:
        raise ValueError("no such day")

    fleet, schedule = Fleet(), Schedule("daily", "0 * * * *", partition=raises)
    fleet.evaluate(schedule)
    fleet.clock.forward(3600)
    fleet.evaluate(schedule)
    (tick,) = fleet.ticks(schedule)
    assert tick.state is TickState.FAILED
    assert 'raise ValueError("no such day")' in (tick.error or "")


def test_lists_of_partitions_run_whole_and_unclear_ones_are_refused() -> None:
    assert partition_of(Schedule("regional", "0 * * * *"), START) == (None, None)
    assert partition_of(Schedule("plain", "0 * * * *"), START) == (None, None)
    with pytest.raises(DefinitionError, match="partition="):
        ScheduleEvaluator(Schedule("both", "0 * * * *"), GRAPH, prepare)
    with pytest.raises(DefinitionError, match="Leave it out"):
        ScheduleEvaluator(Schedule("plain", "0 * * * *", partition=lambda at: at.date()), GRAPH, prepare)
    with pytest.raises(SelectionError, match="plain"):
        ScheduleEvaluator(Schedule("plian", "0 * * * *"), GRAPH, prepare)


# --- each instant once ------------------------------------------------------------------------------------

crons = st.sampled_from(
    ["0 * * * *", "30 2 * * *", "*/20 1-3 * * *", "15 1,2,3 * * *", "0 0 * * SUN", "*/7 * * * *", "0 3 1 * *"]
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
beginnings = st.sampled_from(
    [datetime(2024, 3, 9, 20), datetime(2024, 3, 30, 20), datetime(2024, 4, 6, 9), datetime(2024, 10, 26, 20)]
)
# seconds that pass, and after how many conclusions the node is killed; None for not at all
lives = st.lists(st.tuples(st.integers(1, 40_000), st.none() | st.integers(0, 3)), min_size=1, max_size=12)


@given(crons, zones, beginnings, lives)
def test_each_instant_happens_once_whatever_interrupts(
    cron: str, zone: str, beginning: datetime, lives: list[tuple[int, int | None]]
) -> None:
    fleet, schedule = Fleet(), Schedule("plain", cron, timezone=zone, catch_up="all")
    began = fleet.clock.at = beginning.replace(tzinfo=UTC)
    for seconds, killed_after in lives:
        fleet.evaluate(schedule, conclusions=killed_after)
        fleet.clock.forward(seconds)
    fleet.clock.forward(31)  # a lease that is left over runs out
    for _ in range(30):
        fleet.evaluate(schedule)
    ticks = fleet.ticks(schedule)
    assert [tick.at for tick in ticks] == list(schedule.times.between(began, fleet.clock.at))
    runs = [run_id for tick in ticks for run_id in tick.run_ids]
    assert len(set(runs)) == len(runs) == len(ticks)


@given(crons, zones, beginnings, lives, st.sampled_from(["skip", "latest"]))
def test_every_instant_is_run_or_accounted_for(
    cron: str, zone: str, beginning: datetime, lives: list[tuple[int, int | None]], policy: str
) -> None:
    fleet, schedule = Fleet(), Schedule("plain", cron, timezone=zone, catch_up=policy)
    began = fleet.clock.at = beginning.replace(tzinfo=UTC)
    for seconds, killed_after in lives:
        fleet.evaluate(schedule, conclusions=killed_after)
        fleet.clock.forward(seconds)
    fleet.clock.forward(31)
    fleet.evaluate(schedule)
    fleet.evaluate(schedule)
    accounted = 0
    for tick in fleet.ticks(schedule):
        accounted += 1 if tick.state is TickState.REQUESTED else int((tick.reason or "").split()[0])
    assert accounted == len(list(schedule.times.between(began, fleet.clock.at)))


def test_the_run_of_an_instant_has_one_id_whoever_evaluates_it() -> None:
    schedule = hourly()
    fleets = [Fleet(), Fleet()]
    for fleet in fleets:
        fleet.evaluate(schedule)
        fleet.clock.forward(3600)
        fleet.evaluate(schedule)
    first, second = (fleet.ticks(schedule)[0].run_ids for fleet in fleets)
    assert first == second


def test_a_cursor_that_cannot_be_read_begins_anew() -> None:
    for text in (None, "", "x", "{}", '{"times": "a", "at": "never"}', '{"times": "a", "at": "2024-01-01"}', "[]"):
        assert Position.read(text) is None


def test_by_hand_moves_nothing_of_the_regular_instants() -> None:
    fleet, schedule = Fleet(), hourly()
    fleet.evaluate(schedule)
    before = fleet.store.automations.record(schedule.id)
    fleet.clock.forward(60)
    fleet.store.automations.request(schedule.id)
    fleet.evaluate(schedule)
    (tick,) = fleet.ticks(schedule)
    assert (tick.by_hand, tick.at) == (True, fleet.clock.at)
    assert fleet.store.automations.record(schedule.id) == before


def test_the_clock_of_the_node_is_not_read() -> None:
    """The store's clock decides alone: nodes may be wrong by minutes, and nothing changes."""
    package = Path(flowstone.__file__).parent
    files = [package / "engine/automation" / f"{name}.py" for name in ("loop", "evaluation", "schedules")] + [
        package / "core" / f"{name}.py" for name in ("cron", "automation/schedule", "automation/record")
    ]
    for file in files:
        called = {
            f"{ast.unparse(node.func)}"
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not called & {"datetime.now", "datetime.utcnow", "time.time", "date.today", "datetime.today"}, file
