from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from flowstone import FlowStone, RetryPolicy, StaticPartitions, asset, telemetry
from flowstone.core.outcome import Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, CommitResult
from flowstone.engine.step_log import StepLog

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def test_short_steps_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = 0.0
    steps = StepLog(lambda asset, key: key, now=lambda: clock)
    with caplog.at_level(logging.INFO, "flowstone.steps"):
        for number in range(100):
            claim = Attempt(number, "run", "a", f"k{number}", 1, 3, 1, NOW)
            steps.began(claim)
            done = AttemptResult(claim, Succeeded(StoredOutput("memory", "x"), 1), (), NOW + timedelta(seconds=1))
            steps.ended([done], [CommitResult(number, State.COMPLETED, accepted=True)])
        assert len(caplog.records) < 30
        assert "a [k0] begins: attempt 1 of 3, run run" in caplog.text
        assert "a [k0] completed after 1.000 s (run run, step 0)" in caplog.text
        clock = 2.0
        steps.began(claim)
        assert "more lines of this kind" in caplog.text


@asset(partitions=StaticPartitions(["a", "b"]), retry=RetryPolicy(max_attempts=2, backoff_seconds=0))
def flaky(context) -> int:
    if context.attempt == 1 and context.partition == "a":
        raise ValueError("first")
    return 1


def test_events_after_the_commit_of_an_inline_run() -> None:
    reported = []
    telemetry.attach("test", ["attempt.committed", "run.*"], lambda *event: reported.append(event))
    try:
        flow = FlowStone.for_testing([flaky])
        result = flow.backfill("flaky", executor_opts={"retry": True})
        flow.backfill("flaky")  # nothing is left to do
    finally:
        telemetry.detach("test")
    attempts = [about for event, _, about in reported if event == "attempt.committed"]
    assert [one["state"] for one in attempts] == ["retrying", "completed", "completed"]
    assert [one["final"] for one in attempts] == [False, True, True]
    ends = [
        (measured["steps"], about["run_id"], about["state"])
        for event, measured, about in reported
        if event == "run.ended"
    ]
    assert [(steps, state) for steps, _, state in ends] == [(2, "completed"), (2, "completed")]
    assert ends[0][1] == result.run_id
