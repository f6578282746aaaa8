from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from flowstone import DailyPartitions, FlowStone, Schedule, asset
from flowstone.core.automation.record import TickState
from flowstone.core.state import State
from flowstone.errors import DefinitionError, SelectionError, UnknownAutomationError, UnknownPartitionError

DAYS = DailyPartitions("2024-01-01")


@asset(partitions=DAYS)
def sales(context: Any) -> date:
    return context.partition


@asset(partitions=DAYS)
def report(sales: date) -> str:
    return f"sales of {sales}"


@asset
def broken() -> None:
    raise ValueError("no")


def an_app(*schedules: Schedule) -> FlowStone:
    return FlowStone.for_testing([sales, report, broken], schedules=schedules)


def test_running_now_is_recorded_beside_the_regular_instants() -> None:
    flow = an_app(Schedule("+report", "0 6 * * *", name="nightly", paused=True))
    assert flow.schedules.list()[0].paused
    tick = flow.schedules.run_now("nightly")
    assert tick is not None
    assert (tick.state, tick.by_hand) == (TickState.REQUESTED, True)
    yesterday = tick.at.date() - timedelta(days=1)
    assert flow.load("report", partition=yesterday) == f"sales of {yesterday}"
    run = flow.runs.get(tick.run_ids[0])
    assert (run.kind, run.state) == ("schedule", State.COMPLETED)
    assert flow.schedules.ticks("nightly") == flow.schedules.ticks() == [tick]
    again = flow.schedules.run_now("nightly")
    assert again is not None
    assert again.run_ids != tick.run_ids


def test_a_run_that_fails_is_a_tick_all_the_same() -> None:
    flow = an_app(Schedule("broken", "0 6 * * *"))
    tick = flow.schedules.run_now("broken")
    assert tick is not None
    assert tick.state is TickState.REQUESTED
    assert flow.runs.get(tick.run_ids[0]).state is State.FAILED


def test_what_cannot_be_planned_is_raised_and_recorded() -> None:
    flow = an_app(Schedule("report", "0 6 * * *", partition=lambda at: date(2000, 1, 1)))
    with pytest.raises(UnknownPartitionError):
        flow.schedules.run_now("report")
    (tick,) = flow.schedules.ticks("report")
    assert tick.state is TickState.FAILED
    assert "2000-01-01" in (tick.error or "")


def test_a_function_without_an_answer_is_a_skipped_tick() -> None:
    flow = an_app(Schedule("report", "0 6 * * *", partition=lambda at: None))
    tick = flow.schedules.run_now("report")
    assert tick is not None
    assert (tick.state, tick.run_ids) == (TickState.SKIPPED, ())


def test_pausing_and_resuming() -> None:
    flow = an_app(Schedule("report", "0 6 * * *"))
    assert not flow.schedules.resume("report")
    assert flow.schedules.pause("report")
    assert not flow.schedules.pause("report")
    assert flow.schedules.get("report").paused
    assert flow.schedules.resume("report")
    assert not flow.schedules.get("report").paused


def test_the_next_instants() -> None:
    flow = an_app(Schedule("report", "0 6 * * *", timezone="Europe/Berlin"))
    ticks = flow.schedules.next_ticks("report", 3)
    assert [tick.hour for tick in ticks] == [6, 6, 6]
    assert ticks[0] > datetime.now(UTC)
    assert len(flow.schedules.get("report", n=7).next_ticks) == 7


def test_typing_errors_are_notified_when_the_app_is_made() -> None:
    with pytest.raises(SelectionError, match="Did you mean 'report'"):
        an_app(Schedule("reprt", "0 6 * * *"))
    with pytest.raises(DefinitionError, match="two schedules named 'report'"):
        an_app(Schedule("report", "0 6 * * *"), Schedule("report", "0 7 * * *"))
    with pytest.raises(UnknownAutomationError, match="Did you mean 'report'"):
        an_app(Schedule("report", "0 6 * * *")).schedules.pause("reprot")
    with pytest.raises(UnknownAutomationError, match="schedules="):
        an_app().schedules.get("report")


def test_nodes_evaluate_what_the_app_declares() -> None:
    flow = an_app(Schedule("report", "0 6 * * *"))
    assert [str(one.id.name) for one in flow.evaluators if one.id.kind == "schedule"] == ["report"]
