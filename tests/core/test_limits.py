from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import FlowStone, asset
from flowstone.core.limits import MAX_RATE, Breaker, Rate, check_limits, parse_limit
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
    assert parse_limit(breaker.text) == breaker


@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 1.5, True, None, [3]),
        *("", "4", "10", "/minute", "0/minute", "-1/minute", "1.5/minute"),
        *("3/0 minutes", "3/fortnight", "3/minute/hour", "3/ minute x", f"{MAX_RATE + 1}/day"),
        *("breaker", "breaker 5", "breaker 0 failures/s", "breaker 5 failures/0 s", "breaker 5 failures/-1 s"),
        *("breaker five failures/s", "breaker 5/60 s", "breaker 5 failures/1e3 s"),
    ],
)
def test_malformed_limits_are_refused(value: object) -> None:
    with pytest.raises(DefinitionError, match="cannot be understood"):
        parse_limit(value)  # type: ignore[arg-type]


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
    check_limits({"a": {"x": "60/minute"}, "b": {"x": "60/60 seconds"}})
    with pytest.raises(DefinitionError, match="'x'"):
        check_limits({"a": {"x": 60}, "b": {"x": "60/minute"}})


def declare(limits: dict[str, int | str]) -> FlowStone:
    @asset(concurrency=limits)
    def one():
        return 1

    return FlowStone.for_testing([one])


@pytest.mark.parametrize("limits", [{"crane": 0}, {"crane": "often"}])
def test_a_malformed_limit_is_refused_where_it_is_declared(limits: dict[str, int | str]) -> None:
    with pytest.raises(DefinitionError, match="cannot be understood"):
        declare(limits)
