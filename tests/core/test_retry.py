from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.retry import NO_RETRY, RetryPolicy
from flowstone.errors import DefinitionError


def test_the_documented_defaults() -> None:
    policy = RetryPolicy()
    assert policy.max_attempts == 3
    assert [policy.delay_seconds(attempt) for attempt in range(1, 7)] == [10, 30, 90, 270, 300, 300]
    assert policy.delay_seconds(1, chance=0.0) == pytest.approx(9)
    assert policy.delay_seconds(1, chance=1.0) == pytest.approx(11)
    assert NO_RETRY.max_attempts == 1


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
    ],
)
def test_figures_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(DefinitionError, match="RetryPolicy"):
        RetryPolicy(**options)
