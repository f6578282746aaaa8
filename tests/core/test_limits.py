"""The state of a breaker, compared with what its rules say in words."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import Breaker, FlowStone, Rate, asset
from flowstone.core.limits import (
    MAX_RATE,
    Circuit,
    LimitLike,
    check_limits,
    describe_open,
    parse_limit,
    parse_limits,
    stored_limits,
)
from flowstone.errors import DefinitionError

times = st.floats(min_value=0.0, max_value=50.0, allow_nan=False)


@given(st.integers(1, 6), st.floats(min_value=0.5, max_value=20.0), st.lists(times, max_size=60))
def test_never_more_than_count_in_any_window(count: int, per_seconds: float, asks: list[float]) -> None:
    rate, starts, admitted = Rate(count, per_seconds), list[float](), []
    for now in sorted(asks):
        wait = rate.take(starts, now=now)
        assert wait >= 0.0
        if wait == 0.0:
            admitted.append(now)
    for earlier, later in zip(admitted, admitted[count:], strict=False):
        assert not later - per_seconds < earlier
    assert len(starts) <= count


@given(st.integers(1, 5), st.integers(1, 20), st.lists(st.integers(0, 40), max_size=40))
def test_the_wait_that_learns_is_enough_and_not_too_long(count: int, per: int, asks: list[int]) -> None:
    rate, starts = Rate(count, float(per)), list[float]()
    for now in sorted(asks):
        wait = rate.take(starts, now=float(now))
        if wait:
            before = list(starts)
            assert rate.take(before, now=now + wait) == 0.0
            assert wait == 1.0 or rate.take(list(starts), now=now + wait - 1.0) > 0.0


def test_a_window_that_was_made_smaller_is_not_exceeded() -> None:
    starts = [0.0, 1.0, 2.0, 3.0]
    assert Rate(2, 10.0).take(starts, now=4.0) == 8.0


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/minute", Rate(10, 60.0)),
        ("3/second", Rate(3, 1.0)),
        ("3 / s", Rate(3, 1.0)),
        ("100/2 hours", Rate(100, 7200.0)),
        ("1/day", Rate(1, 86400.0)),
        ("5/30 min", Rate(5, 1800.0)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    assert parse_limit(text) == rate


@pytest.mark.parametrize(
    ("text", "breaker"),
    [
        ("breaker 5 failures/60s", Breaker(5, 60.0)),
        ("breaker 1 failure / 2 hours", Breaker(1, 7200.0)),
        ("breaker 3 failures/minute", Breaker(3, 60.0)),
        ("breaker 3 failures/0.5 s", Breaker(3, 0.5)),
    ],
)
def test_breakers(text: str, breaker: Breaker) -> None:
    assert parse_limit(text) == breaker


@given(st.integers(1, 10**9 - 1), st.integers(1, 10**12).map(lambda millionths: millionths / 10**6))
def test_a_breaker_is_read_as_it_is_written(failures: int, reset_seconds: float) -> None:
    breaker = Breaker(failures, reset_seconds)
    assert parse_limit(str(breaker)) == breaker


@given(st.integers(1, MAX_RATE), st.integers(1, 10**12).map(lambda millionths: millionths / 10**6))
def test_a_rate_is_read_as_it_is_written(count: int, seconds: float) -> None:
    rate = Rate(count, seconds)
    assert parse_limit(str(rate)) == rate == Rate(count, timedelta(seconds=seconds))


def test_limits_are_objects_and_written_as_text() -> None:
    limits = {"slots": 4, "api": Rate(10, "minute"), "partner": Breaker(failures=5, seconds=60)}
    stored = stored_limits(limits)
    assert stored == {"slots": 4, "api": "10/minute", "partner": "breaker 5 failures/60 s"}
    assert parse_limits(stored) == limits
    assert repr(limits["api"]) == "Rate(10, 'minute')"
    assert pickle.loads(pickle.dumps(limits)) == limits


def test_numbers_of_other_libraries_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert parse_limit(numpy.int64(4)) == 4
    assert type(parse_limit(numpy.int64(4))) is int
    assert Rate(numpy.int32(3), numpy.float64(60)) == Rate(3, "minute")
    assert Breaker(numpy.uint8(2), numpy.int64(5)) == Breaker(2, timedelta(seconds=5))


@pytest.mark.parametrize("count", [0, -1, True, 1.5, Decimal(3), "3", None, [3], MAX_RATE + 1])
def test_rates_of_a_wrong_count_are_refused(count: object) -> None:
    with pytest.raises(DefinitionError, match=r"give a whole number of starts from 1 to 10,000"):
        Rate(count, "minute")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "per", [0, -1, True, Decimal(60), None, [60], "", "fortnight", "-2 hours", "0 s", float("nan"), timedelta(0)]
)
def test_rates_over_a_wrong_time_are_refused(per: object) -> None:
    with pytest.raises(DefinitionError, match=r"such as 'minute', '2 hours', a timedelta or seconds above 0"):
        Rate(3, per)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"failures": value} for value in (0, -1, True, 1.5, Decimal(3), "3", None, [3])),
        *({"seconds": value} for value in (0, -1.0, True, Decimal(60), "60", "minute", None, [60], float("inf"))),
    ],
)
def test_wrong_breakers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        DefinitionError, match=r"give a whole number from 1 on, and a timedelta or seconds above 0"
    ):
        Breaker(**wrong)


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 1.5, True, None, [3], Decimal(3), b"3/s", {"rate": 3}),
        *("", "4", "10", "/minute", "0/minute", "-1/minute", "1.5/minute"),
        *("3/0 minutes", "3/fortnight", "3/minute/hour", "3/ minute x", f"{MAX_RATE + 1}/day"),
        *("breaker", "breaker 5", "breaker 0 failures/s", "breaker 5 failures/0 s", "breaker 5 failures/-1 s"),
        *("breaker five failures/s", "breaker 5/60 s", "breaker 5 failures/1e3 s"),
    ],
)
def test_malformed_limits_are_refused(value: object) -> None:
    with pytest.raises(DefinitionError, match="cannot be understood"):
        parse_limit(value)


def test_assets_that_disagree_are_refused() -> None:
    @asset(concurrency={"crane": 2, "service": "60/minute"})
    def one():
        return 1

    @asset(concurrency={"crane": 3})
    def two():
        return 2

    with pytest.raises(DefinitionError, match=r"'crane' is 2 for asset 'one' but 3 for 'two'"):
        FlowStone.for_testing([one, two])


def test_two_ways_of_writing_one_limit_agree() -> None:
    check_limits({"a": parse_limits({"x": "60/minute"}), "b": parse_limits({"x": "60/60 seconds"})})
    with pytest.raises(DefinitionError, match="'x'"):
        check_limits({"a": {"x": 60}, "b": {"x": Rate(60, "minute")}})


def test_assets_hold_objects_whatever_they_were_declared_with() -> None:
    @asset(concurrency={"crane": 2, "service": "60/minute", "partner": Breaker(3, 60)})
    def one():
        return 1

    assert one.concurrency == {"crane": 2, "service": Rate(60, "minute"), "partner": Breaker(3, 60)}


def declare(limits: dict[str, LimitLike]) -> FlowStone:
    @asset(concurrency=limits)
    def one():
        return 1

    return FlowStone.for_testing([one])


@pytest.mark.parametrize("limits", [{"crane": 0}, {"crane": "often"}])
def test_a_malformed_limit_is_refused_where_it_is_declared(limits: dict[str, LimitLike]) -> None:
    with pytest.raises(DefinitionError, match="cannot be understood"):
        declare(limits)


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
