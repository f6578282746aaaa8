from __future__ import annotations

import subprocess
import sys
import time
from datetime import timedelta

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.state import State
from flowstone.errors import OptionsError
from flowstone.executors.inline import SerialExecutor, StepEvent


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


def test_failures_are_notified_cleaned() -> None:
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


def test_a_pause_is_before_each_step() -> None:
    started = time.monotonic()
    flow().materialize_all("two", executor="serial", executor_opts={"pause_between": timedelta(seconds=0.05)})
    assert 0.1 <= time.monotonic() - started < 30
    started = time.monotonic()
    patient = SerialExecutor(pause_between=60)
    flow().materialize_all("two", executor=patient, executor_opts={"pause_between": 0})
    assert time.monotonic() - started < 30


def test_the_account_is_logged_unless_it_is_not_requested(caplog: pytest.LogCaptureFixture) -> None:
    flow().materialize_all("two", executor="serial")
    message = [record.getMessage() for record in caplog.records if record.name == "flowstone.serial"]
    assert message[0] == "1. one begins"
    assert message[1].startswith("1. one completed: [0, 1, 2, 3, 4, ...] (")
    caplog.clear()
    flow().materialize_all("two", executor="serial", executor_opts={"verbose": False})
    assert not [record for record in caplog.records if record.name == "flowstone.serial"]


def test_where_nobody_configured_logging_the_account_is_on_standard_error() -> None:
    program = "from flowstone import FlowStone, asset\n@asset\ndef one():\n    return 1\n"
    program += "FlowStone.for_testing([one]).materialize('one', executor='serial')\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.splitlines()[0] == "1. one begins"


def test_a_listener_that_raises_after_a_step_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def late(event: StepEvent) -> None:
        if event.phase == "after":
            raise ZeroDivisionError

    assert flow().materialize_all("two", executor=SerialExecutor(on_step=late)).ok
    assert "on_step raised after step 1, which is over all the same" in caplog.text


def test_bad_options_are_refused_early() -> None:
    with pytest.raises(OptionsError, match="pause_between"):
        SerialExecutor(pause_between=-1)
    with pytest.raises(OptionsError, match="on_step"):
        SerialExecutor(on_step=5)  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="verbose"):
        SerialExecutor(verbose="no")  # type: ignore[arg-type]
    made = flow()
    with pytest.raises(OptionsError, match="pause_between"):
        made.materialize("one", executor="serial", executor_opts={"pause_between": -1})
    assert made.runs.latest() == []
