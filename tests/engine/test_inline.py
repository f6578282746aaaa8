from __future__ import annotations

import threading

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.job import Job
from flowstone.core.outcome import RetryLater
from flowstone.core.state import State
from flowstone.errors import RunNotFoundError, StaleAttemptError, StepCancelledError, StepFailedError


def job(step_id: int, name: str = "one") -> Job:
    return Job(id=step_id, asset=name, partition=None, run_id="r", executor="sync")


@asset
def one() -> int:
    return 1


def test_running_what_is_over_answers_from_the_record() -> None:
    flow = FlowStone.for_testing([one])
    done = flow.materialize("one")
    again = flow.parts.inline.run(job(done.step_id))
    assert (again.value, again.step_id) == (1, done.step_id)


def test_unknown_steps() -> None:
    flow = FlowStone.for_testing([one])
    with pytest.raises(RunNotFoundError):
        flow.parts.inline.run(job(12345))
    assert not flow.parts.inline.cancel(12345)


def test_an_attempt_that_was_superseded_publishes_nothing() -> None:
    flow: FlowStone

    @asset
    def late() -> int:
        # a worker declares this attempt lost and starts another one
        tables = flow.parts.store.catalog._tables
        (step,) = (row for row in tables.steps.values() if row.state is State.RUNNING)
        step.token += 100
        return 1

    flow = FlowStone.for_testing([late])
    with pytest.raises(StaleAttemptError, match="Attempt 1 of 'late' was superseded"):
        flow.materialize("late")
    assert not flow.exists("late")


def test_what_a_commit_releases_is_reported() -> None:
    @asset
    def two(one: int) -> int:
        return one + 1

    flow = FlowStone.for_testing([one, two])
    reported: list[int] = []
    flow.parts.inline._on_released = reported.extend
    run = flow.materialize_all("two")
    assert reported == [step.id for step in flow.runs.steps(run.run_id, state=State.PENDING)]
    assert len(reported) == 1


def test_a_cancel_ends_the_pause_before_the_next_look() -> None:
    snoozed = threading.Event()

    @asset
    def later() -> RetryLater:
        snoozed.set()
        return RetryLater(3600)

    flow = FlowStone.for_testing([later])
    errors: list[BaseException] = []

    def run() -> None:
        try:
            flow.materialize("later", run_id="r")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert snoozed.wait(30)
    flow.runs.cancel("r")
    thread.join(30)
    assert [type(error) for error in errors] == [StepCancelledError]


def test_the_traceback_starts_in_user_code() -> None:
    @asset
    def broken() -> None:
        raise ValueError("here")

    flow = FlowStone.for_testing([broken])
    with pytest.raises(ValueError, match="here") as caught:
        flow.materialize("broken")
    assert caught.traceback[-1].name == "broken"


def test_a_failed_step_answers_with_its_record() -> None:
    @asset
    def broken() -> None:
        raise ValueError("here")

    flow = FlowStone.for_testing([broken])
    with pytest.raises(ValueError, match="here"):
        flow.materialize("broken", run_id="r")
    with pytest.raises(StepFailedError, match="ended as failed") as caught:
        flow.materialize("broken", run_id="r")
    assert "ValueError: here" in (caught.value.error or "")
