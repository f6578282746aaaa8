from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flowstone.app import FlowStone
from flowstone.core.asset import asset
from flowstone.core.context import CancellationToken
from flowstone.core.outcome import Failed, RetryLater, Snoozed, Stopped, Succeeded
from flowstone.core.retry import RetryPolicy
from flowstone.core.step import Attempt, AttemptResult
from flowstone.engine.values import NO_INPUTS
from flowstone.errors import ResourceError


@asset
def one() -> int:
    return 1


@asset
def broken() -> None:
    raise OSError("no luck")


@asset
def later() -> RetryLater:
    return RetryLater(5, "soon")


@asset
def reported(context) -> None:
    context.cancellation.raise_if_cancelled()


@asset(requires=["db"])
def needs() -> None: ...


def unavailable() -> object:
    raise ConnectionError("no database")


def perform(
    name: str, *, attempt: int = 1, policy: RetryPolicy | None = None, cancel: bool = False
) -> AttemptResult:
    flow = FlowStone.for_testing([one, broken, later, reported, needs], resources={"db": unavailable})
    started = datetime.now(UTC) - timedelta(days=1)
    claim = Attempt(7, "run", name, "", attempt, 3, 5, started)
    token = CancellationToken()
    if cancel:
        token.cancel()
    done = flow.parts.runner.perform(claim, NO_INPUTS, token, policy=policy)
    assert done.attempt is claim
    # the claim's clock goes on, whatever this machine's clock says
    assert started <= done.finished_at < started + timedelta(hours=1)
    return done


def test_success_is_stored_but_not_committed() -> None:
    done = perform("one")
    assert isinstance(done.outcome, Succeeded)
    assert (done.outcome.value, done.outcome.stored.location != "", done.retry_in_seconds) == (1, True, None)


def test_a_failure_without_policy_is_final() -> None:
    done = perform("broken")
    assert isinstance(done.outcome, Failed)
    assert done.retry_in_seconds is None


@pytest.mark.parametrize(("attempt", "low", "high"), [(1, 9, 11), (2, 27, 33), (3, None, None)])
def test_the_policy_says_when_to_try_again(attempt: int, low: float | None, high: float | None) -> None:
    delay = perform("broken", attempt=attempt, policy=RetryPolicy()).retry_in_seconds
    if low is None or high is None:
        assert delay is None
    else:
        assert delay is not None
        assert low <= delay <= high


def test_fatal_classes_are_final() -> None:
    assert perform("broken", policy=RetryPolicy(fatal_on=(OSError,))).retry_in_seconds is None


def test_returned_outcomes_and_cancels() -> None:
    assert perform("later").outcome == Snoozed(5.0, "soon")
    assert isinstance(perform("reported", cancel=True).outcome, Stopped)


def test_a_resource_that_cannot_be_opened_is_a_failure_of_the_step() -> None:
    outcome = perform("needs").outcome
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.exception, ResourceError)
    assert "no database" in outcome.error
