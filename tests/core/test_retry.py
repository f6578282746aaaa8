from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.retry import NO_RETRY, RetryPolicy
from flowstone.errors import DefinitionError, RetryPolicyError


def test_the_documented_defaults() -> None:
    policy = RetryPolicy()
    assert policy.max_attempts == 3
    assert [policy.delay_seconds(attempt) for attempt in range(1, 7)] == [10, 30, 90, 270, 300, 300]
    assert policy.delay_seconds(1, chance=0.0) == pytest.approx(9)
    assert policy.delay_seconds(1, chance=1.0) == pytest.approx(11)
    assert NO_RETRY.max_attempts == 1


@pytest.mark.filterwarnings("ignore:max_backoff_seconds:UserWarning")  # days, given on purpose
@given(
    st.builds(
        RetryPolicy,
        backoff_seconds=st.floats(0, 1e6),
        factor=st.floats(1, 1e6),
        max_backoff_seconds=st.floats(0, 1e6),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 100_000),
    st.floats(0, 1),
)
def test_delays_are_bounded_for_every_attempt(policy: RetryPolicy, attempt: int, chance: float) -> None:
    delay = policy.delay_seconds(attempt, chance=chance)
    assert math.isfinite(delay)
    assert 0 <= delay <= policy.max_backoff_seconds * (1 + policy.jitter) + 1e-6
    assert policy.delay_seconds(attempt) <= policy.delay_seconds(attempt + 1) + 1e-6


def test_classes_decide() -> None:
    policy = RetryPolicy(retry_on=(OSError,), fatal_on=(PermissionError,))
    assert policy.retries(ConnectionError())
    assert not policy.retries(PermissionError())
    assert not policy.retries(ValueError())
    assert RetryPolicy().retries(ValueError())
    assert not RetryPolicy().retries(SystemExit())


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": 1001},
        {"max_attempts": 2.5},
        {"backoff_seconds": -1},
        {"backoff_seconds": math.nan},
        {"max_backoff_seconds": -1},
        {"factor": 0.5},
        {"factor": math.nan},
        {"jitter": 1.5},
        {"jitter": math.nan},
        {"max_attempts": True},
        {"max_attempts": "3"},
        {"backoff_seconds": "10"},
        {"backoff_seconds": True},
        {"backoff_seconds": math.inf},
        {"backoff_seconds": timedelta(days=400)},
        {"max_backoff_seconds": None},
        {"retry_on": "ConnectionError"},
        {"retry_on": [ConnectionError, "TimeoutError"]},
        {"retry_on": [ConnectionError()]},
        {"retry_on": None},
        {"fatal_on": [int]},
        {"backoff": 5},
        {"backoff": lambda attempt: 1},
    ],
)
def test_figures_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(DefinitionError, match="RetryPolicy"):
        RetryPolicy(**options)


def test_seconds_in_place_of_the_function_are_notified_their_option() -> None:
    with pytest.raises(DefinitionError, match=r"backoff=5\): .*, or backoff_seconds=5 for the first delay"):
        RetryPolicy(backoff=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [[ConnectionError, OSError], {ConnectionError}, ConnectionError, ConnectionError | OSError, iter([OSError])],
)
def test_exception_classes_in_any_collection(given: object) -> None:
    policy = RetryPolicy(retry_on=given)  # type: ignore[arg-type]
    assert policy.retries(ConnectionError())
    assert not policy.retries(ValueError())


def test_durations_and_numbers_of_libraries() -> None:
    policy = RetryPolicy(max_attempts=np.int64(4), backoff_seconds=timedelta(minutes=1), factor=np.float64(1))
    assert (policy.max_attempts, type(policy.max_attempts)) == (4, int)
    assert policy.delay_seconds(3) == 60.0


def test_a_function_says_how_long_to_wait() -> None:
    def after(attempt: int, error: BaseException | None) -> timedelta:
        return timedelta(seconds=attempt * getattr(error, "retry_after", 1))

    error = ConnectionError()
    error.retry_after = 500  # type: ignore[attr-defined]
    policy = RetryPolicy(backoff=after, max_backoff_seconds=3)
    assert [policy.delay_seconds(2, error, chance=chance) for chance in (0.0, 1.0)] == [1000.0, 1000.0]


@pytest.mark.parametrize("message", [math.nan, -1, "5", None, True, math.inf, timedelta(days=-1), 10**400])
def test_what_the_function_says_wrong_is_an_error(message: object) -> None:
    with pytest.raises(RetryPolicyError, match="there is no further attempt"):
        RetryPolicy(backoff=lambda attempt, error: message).delay_seconds(1)  # type: ignore[arg-type, return-value]
