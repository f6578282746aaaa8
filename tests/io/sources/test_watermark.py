"""The watermark: bounded, exact, and nothing on it is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.automation.sensor import MAX_CURSOR
from flowstone.errors import SensorError
from flowstone.io.sources.watermark import MAX_SEEN, Place, Watermark, digest, moved


def taken_of(mark: Watermark | None, there: list[Place], limit: int) -> list[Place]:
    """What a sensor takes: the first new ones in order."""
    new = [place for place in there if mark is None or (place.at >= mark.at and mark.is_before(place))]  # type: ignore[operator]
    return sorted(new)[:limit]


def test_nothing_taken_moves_nothing() -> None:
    assert moved(None, []) is None
    mark = moved(None, [Place(1, "a")])
    assert moved(mark, []) is mark


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.text(max_size=2)), max_size=6), max_size=8),
    st.integers(1, 4),
)
def test_whatever_is_not_older_than_the_watermark_is_taken_exactly_once(
    arrivals: list[list[tuple[int, str]]], limit: int
) -> None:
    there: set[Place] = set()
    mark: Watermark | None = None
    taken: list[Place] = []
    for arriving in [*arrivals, *[[]] * 40]:
        now = 0 if mark is None else mark.at
        there |= {Place(max(at, now), tie) for at, tie in arriving}  # type: ignore[type-var]  # late ones carry its time
        took = taken_of(mark, sorted(there), limit)
        taken += took
        mark = moved(mark, took)
        if mark is not None:
            mark = Watermark.from_cursor(mark.to_cursor(), sensor="x")
    assert len(taken) == len(set(taken))
    assert set(taken) == there


def test_when_too_many_share_an_instant_their_order_decides() -> None:
    there = [Place(1, f"{number:05}") for number in range(MAX_SEEN * 2)]
    mark: Watermark | None = None
    taken: list[Place] = []
    while took := taken_of(mark, there, 300):
        taken += took
        mark = moved(mark, took)
    assert taken == there
    assert mark is not None
    assert mark.seen is None
    assert moved(mark, [Place(2, "a")]) == Watermark(2, "a", frozenset([digest(Place(2, "a"))]))


def test_the_cursor_stays_small() -> None:
    largest = [Place(10**18, f"{number}" + "x" * 4000) for number in range(MAX_SEEN)]
    mark = moved(None, largest)
    assert mark is not None
    assert mark.seen is not None
    assert len(mark.to_cursor().encode()) < MAX_CURSOR


@pytest.mark.parametrize("cursor", ["", "7", "[]", "{}", '{"at": 1, "after": "s:a", "seen": []}', '{"at": "i:1"}'])
def test_a_cursor_of_another_else_is_refused(cursor: str) -> None:
    with pytest.raises(SensorError, match="set_cursor"):
        Watermark.from_cursor(cursor, sensor="inbox")
    assert Watermark.from_cursor(None, sensor="inbox") is None
