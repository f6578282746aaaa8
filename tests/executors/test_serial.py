from __future__ import annotations

import time

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.state import State
from flowstone.errors import OptionsError
from flowstone.executors.serial import SerialExecutor, StepEvent


@asset
def one() -> list[int]:
    return list(range(10_000))


@asset
def two(one: list[int]) -> int:
    return len(one)


@asset
def broken(one: list[int]) -> None:
    raise ValueError("password=hunter2 \x00")


def flow() -> FlowStone:
    return FlowStone.for_testing([one, two, broken])


def test_an_account_of_every_step() -> None:
    events: list[StepEvent] = []
    flow().materialize_all("two", executor=SerialExecutor(on_step=events.append))
    assert [(event.phase, event.number, event.job.asset) for event in events] == [
        ("before", 1, "one"),
        ("after", 1, "one"),
        ("before", 2, "two"),
        ("after", 2, "two"),
    ]
    assert (events[0].duration_seconds, events[0].state, events[0].value) == (None, None, None)
    assert (events[1].state, events[1].value) == ("completed", "[0, 1, 2, 3, 4, ...]")
    assert (events[1].duration_seconds or 0) > 0
    assert events[3].value == "10000"


def test_failures_are_told_cleaned() -> None:
    events: list[StepEvent] = []
    result = flow().materialize_all("broken", executor="serial", executor_opts={"on_step": events.append})
    assert not result.ok
    assert (events[-1].state, events[-1].error) == ("failed", "ValueError: password=*** \\x00")


def test_on_step_that_raises_before_a_step_fails_that_step() -> None:
    def stop(event: StepEvent) -> None:
        if event.job.asset == "two":
            raise ZeroDivisionError

    made = flow()
    result = made.materialize_all("two", executor=SerialExecutor(on_step=stop), run_id="r")
    assert (result.succeeded, result.failed, result.state) == (1, 1, State.FAILED)
    assert made.materialize_all("two").value == 10_000


def test_pauses_are_between_steps() -> None:
    started = time.monotonic()
    flow().materialize_all("two", executor="serial", executor_opts={"pause_between": 0.05})
    assert 0.05 <= time.monotonic() - started < 5


def test_bad_options_are_refused_early() -> None:
    with pytest.raises(OptionsError, match="pause_between"):
        SerialExecutor(pause_between=-1)
    made = flow()
    with pytest.raises(OptionsError, match="pause_between"):
        made.materialize("one", executor="serial", executor_opts={"pause_between": -1})
    assert made.runs.latest() == []
