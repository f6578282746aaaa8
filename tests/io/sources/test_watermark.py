"""The watermark: bounded, exact, and nothing on it is lost; the text of a cursor names exactly one value."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.automation.sensor import MAX_CURSOR
from flowstone.errors import SensorError
from flowstone.io.sources.watermark import (
    MAX_SEEN,
    Place,
    Watermark,
    decode_cursor_value,
    digest,
    encode_cursor_value,
    moved,
)

VALUES = st.one_of(
    st.booleans(),
    st.integers(),
    st.text(),
    st.dates(),
    st.datetimes().map(lambda moment: moment.replace(fold=0)),
    st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0)),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.binary(),
)


@given(VALUES)
def test_a_value_comes_back_as_what_it_was(value: object) -> None:
    back = decode_cursor_value(encode_cursor_value(value))
    assert (type(back), back) == (type(value), value)
    assert repr(back) == repr(value)


@given(VALUES, VALUES)
def test_different_values_have_different_texts(one: object, other: object) -> None:
    same = type(one) is type(other) and repr(one) == repr(other)
    assert (encode_cursor_value(one) == encode_cursor_value(other)) is same


def test_an_instant_is_written_in_utc() -> None:
    berlin = datetime(2024, 7, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert encode_cursor_value(berlin) == "t:2024-07-01T00:00:00+00:00"
    assert decode_cursor_value(encode_cursor_value(berlin)) == berlin


@pytest.mark.parametrize("value", [None, float("nan"), Decimal("NaN"), [], object(), timedelta(1), ("a",)])
def test_what_has_no_place_in_an_order_is_refused(value: object) -> None:
    if value == ("a",):  # a partition, and orderable, but no column holds it
        with pytest.raises(ValueError, match="single value"):
            decode_cursor_value(encode_cursor_value(value))
        return
    with pytest.raises(ValueError):
        encode_cursor_value(value)


@pytest.mark.parametrize("text", ["", "x", "@what:1", "@naive:soon", "@uuid:1", "i:05", "(i:1|i:2)", "n:", 7])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode_cursor_value(text)


def test_the_texts_are_readable() -> None:
    assert encode_cursor_value(date(2024, 1, 1)) == "d:2024-01-01"
    assert encode_cursor_value(UUID(int=1)) == "@uuid:00000000-0000-0000-0000-000000000001"
    assert encode_cursor_value(b"\x00\xff") == "@bytes:00ff"


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
