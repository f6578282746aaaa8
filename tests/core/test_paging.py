from __future__ import annotations

import base64

import pytest

from flowstone.core.paging import MAX_LIMIT, Page, clamp_limit, decode_cursor, encode_cursor, page_of
from flowstone.errors import OptionsError


def test_pages_follow_each_other_without_gap_or_repetition() -> None:
    everything = [(n // 3, f"name {n}") for n in range(20)]
    seen: list[tuple[int, str]] = []
    cursor: str | None = None
    while True:
        after = decode_cursor(cursor, int, str)
        rows = [row for row in everything if after is None or row > after][: 7 + 1]
        page = page_of(rows, 7, lambda row: row, total=20)
        seen += page.items
        if page.next is None:
            break
        cursor = page.next
    assert seen == everything


@pytest.mark.parametrize("text", ["it's", "/../?#", "\u202ertl", "😀" * 100, "", '"'])
def test_any_name_may_be_where_a_page_begins(text: str) -> None:
    assert decode_cursor(encode_cursor(text, -(2**62)), str, int) == (text, -(2**62))


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "a b",
        "é",
        "=" * 50,
        "A" * 10_000,
        encode_cursor("a"),
        encode_cursor(1, "a"),
        encode_cursor("a", True),
        encode_cursor("a", 1.5),
        encode_cursor("\x00", 1),
        base64.urlsafe_b64encode(b'{"a": 1}').decode(),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
    ],
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(OptionsError, match="no place in this list"):
        decode_cursor(cursor, str, int)


def test_limits_are_within_bounds_whatever_was_given() -> None:
    given: list[object] = [10**30, float("nan"), "9", True, None, -5, 0]
    assert [clamp_limit(one) for one in given] == [MAX_LIMIT, 50, 50, 50, 50, 1, 1]


def test_a_page_says_that_it_is_not_all() -> None:
    assert Page((1, 2), total=2).summary == ""
    assert Page((1, 2), next="x", total=24_310).summary == "first 2 of 24,310"
    assert Page((1,), next="x").summary == "first 1"
    assert Page(()).summary == ""
