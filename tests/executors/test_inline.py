from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.definition import StaticPartitions
from flowstone.core.job import Job
from flowstone.core.state import State
from flowstone.errors import CapabilityError, MaterializationTimeoutError, OptionsError
from flowstone.executors.inline import (
    MAX_OPTIONS_BYTES,
    AsyncExecutor,
    SerialExecutor,
    StepEvent,
    check_options,
    check_portable,
    refuse_later,
    seconds_option,
)
from flowstone.testing.marks import wait_until


def test_unknown_options_get_a_suggestion() -> None:
    with pytest.raises(OptionsError, match=r"'sync' has no option 'timeout'. Did you mean 'timeout_seconds'\?"):
        check_options("sync", {"timeout": 1}, frozenset({"timeout_seconds"}))
    with pytest.raises(OptionsError, match="Its options: retry"):
        check_options("sync", {"x": 1}, frozenset())


@pytest.mark.parametrize("value", [threading.Lock(), {1, 2}, object(), math.nan, datetime.now(UTC), b"bytes"])
def test_objects_do_not_travel(value: object) -> None:
    with pytest.raises(OptionsError, match="'thing' cannot be sent"):
        check_portable("oban", {"fine": [1, "a", None], "thing": value})


def test_cycles_and_giants_do_not_travel() -> None:
    cyclic: list[object] = []
    cyclic.append(cyclic)
    with pytest.raises(OptionsError, match="cannot be sent"):
        check_portable("oban", {"thing": cyclic})
    with pytest.raises(OptionsError, match=f"more than {MAX_OPTIONS_BYTES:,}"):
        check_portable("oban", {"thing": "x" * 10_000_000})
    check_portable("oban", {"thing": {"nested": [1.5, True]}})


def test_durations() -> None:
    assert seconds_option("t", None) is None
    assert seconds_option("t", 5) == 5.0
    assert seconds_option("t", timedelta(minutes=1)) == 60.0


@pytest.mark.parametrize("value", [0, -1, math.nan, True, "5", timedelta(0), [5]])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(OptionsError, match="t="):
        seconds_option("t", value)


def test_later_is_refused_with_the_name() -> None:
    job = Job(id=1, asset="a", partition=None, run_id="r", executor="x", scheduled_at=datetime.now(UTC))
    with pytest.raises(CapabilityError, match="'x' does not offer 'scheduled_at'"):
        refuse_later("x", job)


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


def test_jobs_scheduled_together_run_together() -> None:
    """Also when a thread is idle already: it must not be counted for each of them."""
    barrier = threading.Barrier(4, timeout=30)

    @asset(partitions=StaticPartitions(range(4)))
    def meets() -> None:
        barrier.wait()

    @asset
    def warm() -> None: ...

    flow = FlowStone.for_testing([meets, warm])
    first = flow.schedule("warm", executor="async")
    assert wait_until(lambda: flow.job_status(first).is_terminal)
    jobs = [flow.schedule("meets", partition=key, executor="async") for key in range(4)]
    assert wait_until(lambda: all(flow.job_status(job).is_terminal for job in jobs))
    assert [flow.job_status(job) for job in jobs] == [State.COMPLETED] * 4


def test_the_limit_holds_for_scheduled_work() -> None:
    lock, running, largest = threading.Lock(), [0], [0]

    @asset(partitions=StaticPartitions(range(40)))
    def counted(context) -> None:
        with lock:
            running[0] += 1
            largest[0] = max(largest[0], running[0])
        context.cancellation.wait(0.005)
        with lock:
            running[0] -= 1

    flow = FlowStone.for_testing([counted])
    executor = AsyncExecutor(max_concurrency=3)
    jobs = [flow.schedule("counted", partition=key, executor=executor) for key in range(40)]
    assert wait_until(lambda: all(flow.job_status(job).is_terminal for job in jobs))
    assert largest[0] in (2, 3)


def test_a_function_that_runs_too_long_fails_and_publishes_nothing() -> None:
    gate = threading.Event()

    @asset
    def slow() -> int:
        gate.wait(30)
        return 1

    flow = FlowStone.for_testing([slow])
    with pytest.raises(MaterializationTimeoutError):
        flow.materialize("slow", executor="async", executor_opts={"timeout_seconds": 0.02})
    gate.set()
    assert not flow.exists("slow")


@pytest.mark.parametrize("options", [{"max_concurrency": 0}, {"timeout_seconds": 0}])
def test_figures_that_cannot_work(options: dict) -> None:
    with pytest.raises((ValueError, TypeError)):
        AsyncExecutor(**options)
