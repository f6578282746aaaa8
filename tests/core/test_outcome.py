from __future__ import annotations

import math
from datetime import timedelta

import pytest

from flowstone.core.outcome import Fatal, Outcome, RetryLater, Skip


def test_retry_later_takes_seconds_or_a_timedelta() -> None:
    assert RetryLater().after_seconds == 30
    assert RetryLater(timedelta(minutes=2)).after_seconds == 120
    assert RetryLater(0).after_seconds == 0
    assert str(RetryLater(90)) == "retry in 90 s"
    assert str(RetryLater(90, "not there")) == "not there"


@pytest.mark.parametrize("after", [-1, math.nan, math.inf, 31_536_001, timedelta(days=400)])
def test_retry_later_refuses_what_is_no_delay(after) -> None:
    with pytest.raises(ValueError, match="RetryLater"):
        RetryLater(after)


def test_outcomes_can_be_raised_and_are_no_errors_of_ours() -> None:
    for outcome in (RetryLater(), Skip(), Fatal("no")):
        with pytest.raises(Outcome):
            raise outcome
    assert str(Skip()) == "nothing to do"
    assert (Fatal("no").reason, str(Fatal("no"))) == ("no", "no")
