"""Missing inputs end a request at once unless it asks to wait, and whoever waits learns for what."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flowstone import AwaitApproval, FlowStone, RetryPolicy, asset
from flowstone.app import waiting
from flowstone.app.waiting import WaitNotice
from flowstone.config import Settings
from flowstone.core.state import State
from flowstone.errors import DependencyNotReadyError, OptionsError


@asset
def raw() -> int:
    return 1


@asset
def table(raw: int) -> int:
    return raw + 1


def make_flow(**settings: float) -> FlowStone:
    return FlowStone([raw, table], settings=replace(Settings(executor="sync"), **settings))


@pytest.mark.parametrize("executor", ["sync", "serial", "async"])
def test_a_missing_input_ends_the_request_before_anything_is_placed(executor: str) -> None:
    flow = make_flow()
    for verb in (flow.materialize, flow.schedule, flow.backfill):
        with pytest.raises(DependencyNotReadyError, match="materialize_all") as caught:
            verb("table", executor=executor)
        assert caught.value.missing == (("raw", ""),)
    assert flow.runs.latest() == []


@pytest.mark.parametrize("executor", ["sync", "serial", "async"])
def test_who_learns_to_wait_goes_on_when_the_input_is_there(executor: str) -> None:
    flow = make_flow(snooze_seconds=0.05)
    made = threading.Timer(0.3, lambda: flow.materialize("raw"))
    made.start()
    done = flow.materialize("table", executor=executor, wait_for_inputs=True)
    made.join()
    assert (done.value, done.attempt) == (2, 1)


def test_scheduled_work_of_this_process_waits_when_reported_and_says_for_what() -> None:
    flow = make_flow(snooze_seconds=0.05)
    job = flow.schedule("table", executor="async", wait_for_inputs=True)
    until = datetime.now(UTC) + timedelta(seconds=20)
    while flow.job_status(job) is not State.SCHEDULED and datetime.now(UTC) < until:
        threading.Event().wait(0.01)
    assert flow.why("table")[0] == "waits for raw"
    flow.materialize("raw")
    assert flow.runs.wait_for(job, timeout_seconds=60).value == 2


def test_waiting_is_bounded() -> None:
    flow = make_flow(snooze_seconds=0.02, deps_timeout_seconds=0.1)
    with pytest.raises(DependencyNotReadyError):
        flow.materialize("table", wait_for_inputs=True)
    (run,) = flow.runs.latest()
    assert run.state is State.FAILED


def test_who_waits_in_this_process_learns_for_what(caplog: pytest.LogCaptureFixture) -> None:
    flow = make_flow(deps_timeout_seconds=1.0, snooze_seconds=0.05)
    with caplog.at_level(logging.WARNING, logger="flowstone"), pytest.raises(DependencyNotReadyError):
        flow.materialize("table", wait_for_inputs=True)
    reported = [record.getMessage() for record in caplog.records if "waits for raw" in record.getMessage()]
    assert reported == ["table waits for raw"]  # once, not at every look


def test_a_flag_is_true_or_false() -> None:
    with pytest.raises(OptionsError, match="wait_for_inputs='yes': give True or False"):
        make_flow().materialize("table", wait_for_inputs="yes")  # type: ignore[arg-type]


def test_the_log_learns_once_and_again_when_that_changes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_CHECK_SECONDS", 0.0)
    found = ["2 jobs are ahead of it"]
    notice = WaitNotice("Step 7", lambda: found)
    with caplog.at_level(logging.WARNING, logger="flowstone"):
        assert notice() == ("2 jobs are ahead of it",)
        found[0] = "1 jobs are ahead of it"
        notice()
        found[0] = "its run is paused"
        assert notice() == notice.reasons == ("its run is paused",)
        found.clear()
        assert notice() == ()
    assert [record.getMessage() for record in caplog.records] == [
        "Step 7 waits: 2 jobs are ahead of it",
        "Step 7 waits: its run is paused",
    ]


def test_what_a_step_of_this_process_rests_for_is_said() -> None:
    @asset(retry=RetryPolicy(max_attempts=3, backoff_seconds=60, jitter=0))
    def flaky() -> None:
        raise ValueError("not today")

    @asset
    def asks() -> None:
        raise AwaitApproval("Pay?")

    flow = FlowStone([flaky, asks], settings=Settings(executor="async"))
    jobs = [flow.schedule("flaky", executor_opts={"retry": True}), flow.schedule("asks")]
    resting = {State.RETRYING, State.AWAITING_APPROVAL}
    until = datetime.now(UTC) + timedelta(seconds=20)
    while {flow.job_status(job) for job in jobs} != resting and datetime.now(UTC) < until:
        threading.Event().wait(0.01)
    failed, due = flow.why("flaky")
    assert failed == "attempt 1 of 3 failed: ValueError: not today"
    assert due.startswith("its next attempt is due at 20")
    assert "waits for approval 1 (Pay?)" in flow.why("asks")[0]
    assert "flowstone approve 1" in flow.why("asks")[0]
    for job in jobs:
        flow.cancel_job(job)
