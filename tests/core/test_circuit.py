"""The state of a breaker, compared with what its rules say in words."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.limits import Breaker, Circuit, describe_open

THREE = Breaker(3, 10.0)


def opened(now: float = 0.0) -> Circuit:
    circuit = Circuit()
    for _ in range(3):
        circuit.end(THREE, failed=True, tried=False, now=now)
    return circuit


def test_it_opens_after_failures_in_a_row_only() -> None:
    circuit = Circuit()
    for failed in (True, True, False, True, True):
        circuit.end(THREE, failed=failed, tried=False, now=0.0)
        assert circuit.pause(1, now=0.0, trying=False) == 0.0
    circuit.end(THREE, failed=True, tried=False, now=5.0)
    assert circuit.open_until == 15.0


def test_one_step_learns_the_time_and_the_others_rest() -> None:
    circuit = opened()
    assert circuit.pause(1, now=4.0, trying=False) == 6.0
    assert circuit.pause(2, now=4.0, trying=False) is None
    assert circuit.pause(1, now=9.0, trying=False) == 1.0  # it looked too early


def test_when_the_time_is_over_anyone_may_be_tried_one_at_a_time() -> None:
    circuit = opened()
    circuit.pause(1, now=4.0, trying=False)
    assert circuit.pause(2, now=10.0, trying=False) == 0.0
    assert circuit.pause(1, now=10.0, trying=True) is None


def test_what_had_started_before_it_opened_changes_nothing() -> None:
    circuit = opened()
    for failed in (True, False):
        circuit.end(THREE, failed=failed, tried=False, now=9.0)
    assert circuit == opened()


def test_a_trial_that_fails_opens_it_again_at_once() -> None:
    circuit = opened()
    circuit.pause(1, now=1.0, trying=False)
    circuit.end(THREE, failed=True, tried=True, now=12.0)
    assert circuit == Circuit(failures=4, open_until=22.0, next_step=None)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 8.0)), max_size=60), st.integers(1, 4))
def test_nothing_starts_while_open_and_one_success_of_a_trial_closes(
    ends: list[tuple[bool, float]], maximum: int
) -> None:
    circuit, breaker, now, in_a_row = Circuit(), Breaker(maximum, 5.0), 0.0, 0
    for failed, later in ends:
        now += later
        wait = circuit.pause(1, now=now, trying=False)
        assert wait is not None
        was_open = circuit.open_until is not None
        if wait:
            assert was_open
            continue  # it would have waited
        circuit.end(breaker, failed=failed, tried=was_open, now=now)
        in_a_row = in_a_row + 1 if failed else 0
        assert circuit.failures == in_a_row
        assert (circuit.open_until is not None) == (in_a_row >= maximum)


def test_what_people_read() -> None:
    until = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert describe_open("x", 1, until) == "the breaker 'x' is open until 2024-05-06 07:08:09 UTC after 1 failure"
    assert describe_open("x", 4, None) == "the breaker 'x' tries one step at a time after 4 failures in a row"
