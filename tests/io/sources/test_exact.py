"""Values of cursors: the text names exactly one value."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.io.sources.watermark import decode_cursor_value, encode_cursor_value

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
