from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from flowstone import DailyPartitions, FlowStone, Schedule, SensorContext, asset, eager, sensor
from flowstone.errors import IncompletePartitionError, OptionsError
from flowstone.testing import FrozenClock

DAYS = DailyPartitions("2024-01-01")


@asset(partitions=DAYS)
def sales(context: Any) -> date:
    return context.partition


@asset(partitions=DAYS, automation=eager())
def report(sales: date) -> str:
    return f"sales of {sales}"


@pytest.fixture
def clock() -> Iterator[FrozenClock]:
    with FrozenClock("2024-03-01") as found:
        yield found


def an_app(clock: FrozenClock, **options: Any) -> FlowStone:
    return clock.follow(FlowStone.for_testing([sales, report], **options))


def test_a_schedule_meets_each_of_its_instants(clock: FrozenClock) -> None:
    flow = an_app(clock, schedules=[Schedule("sales", "0 6 * * *")])
    assert clock.advance(hours=5, minutes=59) == []
    (tick,) = clock.advance(minutes=1)
    assert (tick.at, tick.state.value) == (datetime(2024, 3, 1, 6, tzinfo=UTC), "requested")
    assert flow.load("sales", partition=date(2024, 2, 29)) == date(2024, 2, 29)
    ticks = clock.advance(days=3)
    assert [tick.at.day for tick in ticks] == [2, 3, 4]
    assert {tick.state.value for tick in ticks} == {"requested"}
    assert flow.schedules.next_ticks("sales", 1)[0] == datetime(2024, 3, 5, 6, tzinfo=UTC)


def test_conditions_go_on_with_what_schedules_made(clock: FrozenClock) -> None:
    flow = an_app(clock, schedules=[Schedule("sales", "0 6 * * *")])
    clock.advance(days=1)
    assert flow.load("report", partition=date(2024, 2, 29)) == "sales of 2024-02-29"


def test_the_clock_decides_which_partitions_are_over(clock: FrozenClock) -> None:
    flow = an_app(clock)
    assert len(flow.plan("sales").steps) == 60  # January and 29 days of February
    with pytest.raises(IncompletePartitionError):
        flow.materialize("sales", partition=date(2024, 3, 1))
    clock.advance(days=1)
    assert flow.materialize("sales", partition=date(2024, 3, 1)).value == date(2024, 3, 1)


def test_daylight_saving_is_met_on_the_way() -> None:
    """airflow#7999: a daily schedule keeps its local hour over the change of the clock."""
    with FrozenClock("2024-03-29T12:00") as clock:
        an_app(clock, schedules=[Schedule("sales", "30 6 * * *", timezone="Europe/Berlin")])
        ticks = clock.advance(days=4)
    assert [f"{tick.at:%d %H:%M}" for tick in ticks] == ["30 05:30", "31 04:30", "01 04:30", "02 04:30"]


def test_a_sensor_is_evaluated_as_often_as_it_says(clock: FrozenClock) -> None:
    seen = []

    @sensor(every=600, selection="sales")
    def inbox(context: SensorContext) -> Any:
        seen.append(context)
        return context.request(run_key=str(len(seen)), partition=date(2024, 2, len(seen)))

    flow = an_app(clock, sensors=[inbox])
    assert len(clock.tick()) == 1
    assert len(clock.advance(minutes=30)) == 3
    assert len(seen) == 4
    assert flow.load("sales", partition=date(2024, 2, 4)) == date(2024, 2, 4)


def test_a_paused_schedule_rests_and_a_failing_sensor_is_recorded(clock: FrozenClock) -> None:
    @sensor(every=600)
    def broken() -> None:
        raise ConnectionError("no")

    flow = an_app(clock, sensors=[broken], schedules=[Schedule("sales", "0 6 * * *", paused=True)])
    ticks = clock.advance(minutes=5)
    assert {tick.state.value for tick in ticks} == {"failed"}
    assert "ConnectionError" in (ticks[0].error or "")
    assert flow.schedules.ticks() == []


def test_outside_of_the_block_time_is_real_again() -> None:
    with FrozenClock() as clock:
        flow = clock.follow(FlowStone.for_testing([sales]))
        assert len(flow.plan("sales").steps) == 0
    assert len(FlowStone.for_testing([sales]).plan("sales").steps) > 365


@pytest.mark.parametrize(
    ("to", "says"),
    [
        (datetime.now(UTC) + timedelta(days=400), "in the future"),
        ("soon", "is no time"),
        (datetime(2024, 1, 1), "no time zone"),
        (5, "give a datetime"),
        ("2024-02-01", "cannot go back"),
    ],
)
def test_times_that_cannot_be(clock: FrozenClock, to: Any, says: str) -> None:
    an_app(clock)
    with pytest.raises(OptionsError, match=says):
        clock.move_to(to)


def test_before_an_app_follows_it_the_clock_goes_anywhere(clock: FrozenClock) -> None:
    clock.move_to("2024-02-01T06:00+02:00")
    assert clock.now() == datetime(2024, 2, 1, 4, tzinfo=UTC)
